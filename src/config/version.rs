//! The version of a backend: what its user calls what its replicas are made from. Text, whatever it looks like.

use super::{
    item::Item,
    node::{Value, shown},
};

/// Longest version, in characters.
const VERSION_CHARS_MAX: usize = 128;

/// Reads one; a number would lose zeros at its end, so that 1.1 and 1.10 were the same.
pub(super) fn read(item: Item<'_>) -> Option<String> {
    match &item.node.value {
        Value::Text(text) => match wrong(text) {
            None => Some(text.clone()),
            Some(what) => item.refuse(what),
        },
        Value::Number(number) => {
            let text = shown(&number.text);
            item.refuse(format!(
                "{text} was given, a number; a version is text, write it in quotes: \"{text}\""
            ))
        }
        _ => item.refuse(format!(
            "{} was given; a version is text, write it in quotes if that is what is meant",
            item.node.describe()
        )),
    }
}

/// What is wrong with a version, if anything.
pub(super) fn wrong(version: &str) -> Option<String> {
    let chars = version.chars().count();
    let visible = |c: char| !c.is_whitespace() && !c.is_control();
    let fits = (1..=VERSION_CHARS_MAX).contains(&chars) && version.chars().all(visible);
    let shown: String = version.chars().take(VERSION_CHARS_MAX).collect();
    (!fits).then(|| format!("{shown:?} was given; allowed: 1 to {VERSION_CHARS_MAX} visible characters"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use crate::{
        config::{BackendConfig, BackendUpdate, ServeConfig},
        error::ServeError,
    };

    #[test]
    fn a_version_is_text_of_visible_characters() {
        for good in ["1", "v1.10-rc+5", &"ä".repeat(128)] {
            assert_eq!(BackendConfig::default().version(good).check(), Ok(()), "{good}");
        }
        for bad in ["", "a b", "a\u{7}", "a\n", &"x".repeat(129)] {
            let error = BackendConfig::default().version(bad).check().unwrap_err();
            let ServeError::InvalidConfig(problems) = error else { panic!("{error}") };
            assert_eq!((problems.len(), &*problems[0].place), (1, "version"));
            assert!(problems[0].what.ends_with("1 to 128 visible characters"), "{problems:?}");
        }
    }

    #[test]
    fn an_update_changes_it_or_takes_it_away_and_leaves_it_alone() {
        let config = BackendConfig::default().version("1");
        let updated = |json| config.updated(&BackendUpdate::from_json(json).unwrap()).unwrap().version;
        assert_eq!(updated(json!({"version": "2"})).as_deref(), Some("2"));
        assert_eq!(updated(json!({"num_replicas": 2})).as_deref(), Some("1"));
        assert_eq!(updated(json!({"version": null})), None);
        assert_eq!(serde_json::to_value(&config).unwrap()["version"], "1");
    }

    #[test]
    fn a_number_is_refused_with_the_cure() {
        for number in ["1.10", "2"] {
            let text = format!("backends:\n  - name: a\n    registered: a\n    version: {number}\n");
            let error = ServeConfig::from_yaml(&text, Path::new(".")).unwrap_err().to_string();
            let told = format!("a version is text, write it in quotes: \"{number}\"");
            assert!(error.starts_with("backends[0].version (line 4") && error.ends_with(&told), "{error}");
            let quoted = text.replace(number, &format!("'{number}'"));
            let config = ServeConfig::from_yaml(&quoted, Path::new(".")).unwrap();
            assert_eq!(config.backends[0].config.version.as_deref(), Some(number));
        }
        let error = BackendUpdate::from_json(json!({"version": 3})).unwrap_err().to_string();
        assert!(error.ends_with("write it in quotes: \"3\""), "{error}");
    }
}
