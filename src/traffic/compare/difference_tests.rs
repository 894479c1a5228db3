//! Any value agrees with itself; whatever is changed is found where it was changed.

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;

fn exact(primary: &Value, shadow: &Value) -> Option<Difference> {
    first(primary, shadow, Tolerance::NONE)
}

fn within(absolute: f64, relative: f64) -> impl Fn(Value, Value) -> bool {
    move |p, s| first(&p, &s, Tolerance { absolute, relative }).is_none()
}

#[test]
fn the_path_leads_to_what_differs_first_and_both_sides_are_shown() {
    let cases = [
        (
            json!({"outputs": [{"data": [1, 2, 3, 4]}]}),
            json!({"outputs": [{"data": [1, 2, 3, 5]}]}),
            ("outputs[0].data[3]", "4", "5"),
        ),
        (json!({"a": 1, "b": 2}), json!({"a": 1}), ("b", "2", "(absent)")),
        (json!({"a": 1}), json!({"a": 1, "z": null}), ("z", "(absent)", "null")),
        (json!([1, 2]), json!([1, 2, 3]), ("[2]", "(absent)", "3")),
        (json!({"a b": {"": "x"}}), json!({"a b": {"": "y"}}), (r#"["a b"][""]"#, r#""x""#, r#""y""#)),
        (json!(1), json!("1"), ("$", "1", r#""1""#)),
        (json!(null), json!(false), ("$", "null", "false")),
    ];
    for (primary, shadow, (path, was, is)) in cases {
        let found = exact(&primary, &shadow).unwrap();
        assert_eq!((&*found.path, &*found.primary, &*found.shadow), (path, was, is));
    }
}

#[test]
fn numbers_are_compared_by_value_and_integers_exactly() {
    let equal = |p, s| exact(&p, &s).is_none();
    assert!(equal(json!(1), json!(1.0)) && equal(json!(0.0), json!(-0.0)));
    assert!(!equal(json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64)));
    assert!(!equal(json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992.0)));
    assert!(!equal(json!(u64::MAX), json!(u64::MAX - 1)) && !equal(json!(i64::MIN), json!(u64::MAX)));
    let one = within(1.0, 0.0);
    assert!(one(json!(u64::MAX), json!(u64::MAX - 1)) && !one(json!(u64::MAX), json!(u64::MAX - 2)));
}

#[test]
fn the_tolerance_is_absolute_plus_relative_to_the_primary() {
    let tenth = within(0.0, 0.1);
    assert!(tenth(json!(100), json!(110)) && !tenth(json!(100), json!(110.5)));
    assert!(tenth(json!(-100), json!(-90)) && !tenth(json!(110), json!(98.9)));
    assert!(!tenth(json!(0), json!(1e-300)), "nothing is near to zero but zero");
    let both = within(0.5, 0.1);
    assert!(both(json!(10), json!(11.5)) && !both(json!(10), json!(11.6)));
    assert!(!both(json!("10"), json!("11")) && !both(json!(1), json!(true)), "only numbers have a tolerance");
    assert!(!within(1.0, 0.5)(json!(f64::MAX), json!(f64::MIN)));
}

#[test]
fn long_values_are_cut_between_characters() {
    let text = shown(&json!("ä".repeat(1000)), 100);
    assert!(text.len() <= 103 && text.starts_with("\"ää") && text.ends_with('…'), "{text}");
    assert_eq!(shown(&json!([1, 2]), 5), "[1,2]");
    assert_eq!(shown(&json!([1, 2]), 4), "[1,2…");
}

/// Any JSON value, small.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9_f64).prop_map(Value::from),
        "[a-z]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,3}", inner, 0..4)
                .prop_map(|map| Value::from(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Every place in a value, as a path and as a JSON pointer.
fn places(value: &Value, path: &str, pointer: &str, found: &mut Vec<(String, String)>) {
    found.push((if path.is_empty() { "$".into() } else { path.to_owned() }, pointer.to_owned()));
    match value {
        Value::Array(values) => {
            for (i, value) in values.iter().enumerate() {
                places(value, &format!("{path}[{i}]"), &format!("{pointer}/{i}"), found);
            }
        }
        Value::Object(fields) => {
            for (key, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                places(value, &format!("{path}{dot}{key}"), &format!("{pointer}/{key}"), found);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn a_value_agrees_with_itself_however_little_is_tolerated(value in value()) {
        prop_assert_eq!(exact(&value, &value), None);
        let written: Value = serde_json::from_str(&value.to_string()).unwrap();
        prop_assert_eq!(exact(&value, &written), None);
    }

    #[test]
    fn one_changed_place_is_found_where_it_is(value in value(), chosen in any::<prop::sample::Index>()) {
        let mut all = Vec::new();
        places(&value, "", "", &mut all);
        let (path, pointer) = &all[chosen.index(all.len())];
        let mut changed = value.clone();
        *changed.pointer_mut(pointer).unwrap() = json!("SOMETHING ELSE");
        let found = exact(&value, &changed);
        prop_assert_eq!(found.as_ref().map(|found| &found.path), Some(path));
        prop_assert_eq!(found.unwrap().shadow, "\"SOMETHING ELSE\"");
        prop_assert!(exact(&changed, &value).is_some(), "and the other way round");
    }

    #[test]
    fn who_tolerates_more_agrees_to_no_less(
        p in -1e6..1e6_f64, s in -1e6..1e6_f64, absolute in 0.0..10.0_f64, relative in 0.0..0.5_f64,
    ) {
        let agrees = |absolute, relative| within(absolute, relative)(json!(p), json!(s));
        prop_assert!(!agrees(absolute, relative) || agrees(2.0 * absolute, relative) && agrees(absolute, 2.0 * relative));
        prop_assert_eq!(agrees(absolute, relative), (p - s).abs() <= absolute + relative * p.abs());
    }
}
