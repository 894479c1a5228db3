//! Backends and endpoints in the form in which they are kept, and back.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use crate::{
    config::{EndpointDecl, ServeConfig, Source},
    endpoint::{Checked, Endpoint},
    error::ServeError,
    ids::EndpointName,
    traffic::ShadowRule,
};

/// An endpoint as it is kept. A function that compares answers cannot be: its rule is kept without.
pub(crate) fn decl_of(name: &EndpointName, checked: &Checked) -> EndpointDecl {
    EndpointDecl {
        name: name.clone(),
        route: checked.route.clone(),
        methods: checked.methods.iter().map(|method| (*method).to_owned()).collect(),
        traffic: checked.traffic.clone(),
        shadow: sorted(checked.shadows.iter().map(without_function).collect()),
        affinity: checked.affinity,
    }
}

/// An endpoint out of the form in which it is kept.
///
/// # Errors
/// What [`Endpoint`] refuses, which nothing is that was one before.
pub(crate) fn checked(decl: &EndpointDecl) -> Result<Checked, ServeError> {
    let EndpointDecl { name: _, route, methods, traffic, shadow, affinity } = decl;
    let endpoint = Endpoint::split(traffic.clone()).methods(methods).affinity(*affinity);
    let endpoint = shadow.iter().cloned().fold(endpoint, Endpoint::shadow);
    match route {
        Some(route) => endpoint.route(route.as_str()).check(),
        None => endpoint.check(),
    }
}

/// `kept` with the functions that a program has given again, for the rules that are otherwise still the same.
pub(crate) fn with_functions(mut kept: Checked, given: &Checked) -> Checked {
    for rule in &mut kept.shadows {
        let same = |new: &&ShadowRule| new.backend() == rule.backend() && without_function(new) == *rule;
        if let Some(new) = given.shadows.iter().find(same) {
            *rule = new.clone();
        }
    }
    kept
}

fn without_function(rule: &ShadowRule) -> ShadowRule {
    match rule.compared() {
        Some(compare) if compare.asks() => rule.clone().uncompared(),
        _ => rule.clone(),
    }
}

fn sorted(mut rules: Vec<ShadowRule>) -> Vec<ShadowRule> {
    rules.sort_by(|a, b| a.backend().cmp(b.backend()));
    rules
}

/// Whether two configurations want the same: in the form of a file, where the order of a map is nothing. What they say
/// of the process itself is not looked at: it holds from the start of a process to its end, and some of it is what was
/// found on the machine.
pub(crate) fn same(a: &ServeConfig, b: &ServeConfig) -> bool {
    let form = |config: &ServeConfig| serde_json::to_value((&config.backends, &config.endpoints));
    match (form(a), form(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// The path from the root, without `.` and `..`: one file has one spelling. Links are not followed, as what one stands
/// for may change; so `..` stays behind one, where it means something else. Nothing need be there.
///
/// # Errors
/// Without a working directory nothing relative means anything.
pub(crate) fn straight(path: &Path) -> io::Result<PathBuf> {
    let mut straight = PathBuf::new();
    for part in std::path::absolute(path)?.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if !straight.is_symlink() && !straight.ends_with("..") => {
                let _ = straight.pop();
            }
            part => straight.push(part),
        }
    }
    Ok(straight)
}

/// Makes all paths mean the same from every working directory.
///
/// # Errors
/// A path that is no text cannot be written down; and without a working directory nothing relative means anything.
pub(crate) fn absolute(config: &mut ServeConfig) -> io::Result<()> {
    config.state.iter_mut().chain(&mut config.takeover).try_for_each(straighten)?;
    config.backends.iter_mut().map(|decl| &mut decl.source).try_for_each(straight_source)
}

/// Makes the path of a source mean the same from every working directory.
///
/// # Errors
/// As [`absolute`].
pub(crate) fn straight_source(source: &mut Source) -> io::Result<()> {
    match source {
        Source::Onnx { path } => straighten(path),
        Source::Registered { .. } => Ok(()),
    }
}

fn straighten(path: &mut PathBuf) -> io::Result<()> {
    if path.to_str().is_none() {
        return Err(io::Error::other(format!("the path {} is no text", path.display())));
    }
    *path = straight(path)?;
    Ok(())
}
