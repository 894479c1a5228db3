//! `UserConfig`: what a backend's own code is told by its options, as JSON.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use super::{
    item::Item,
    node::{DEPTH_MAX, NODES_MAX, Number, Value},
};

/// The `user_config` of a backend: any JSON but null, at most 32 levels deep and 200,000 values large. Cheap to
/// clone.
///
/// ```
/// use greenroom::BackendConfig;
/// use serde_json::json;
/// let config = BackendConfig::default().user_config(json!({"threshold": 0.5}));
/// assert_eq!(config.user_config.unwrap().json()["threshold"], 0.5);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct UserConfig(Arc<Json>);

impl UserConfig {
    /// None for null.
    pub(crate) fn new(json: Json) -> Option<Self> {
        (!json.is_null()).then(|| Self(Arc::new(json)))
    }

    /// The value.
    pub fn json(&self) -> &Json {
        &self.0
    }

    /// Reads one; null clears.
    pub(super) fn read(item: Item<'_>) -> Option<Self> {
        match json(&item.node.value) {
            Some(json) => Self::new(json),
            None => item.refuse("it holds a number that JSON cannot hold"),
        }
    }

    /// What is wrong with its size, if anything.
    pub(super) fn too_large(&self) -> Option<String> {
        let mut level: Vec<&Json> = vec![&self.0];
        let (mut depth, mut values) = (0, 0);
        while !level.is_empty() {
            values += level.len();
            if depth > DEPTH_MAX {
                return Some(format!("nested more than {DEPTH_MAX} levels deep"));
            }
            if values > NODES_MAX {
                return Some(format!("more than {NODES_MAX} values"));
            }
            let inner = |json: &&'_ Json| match *json {
                Json::Array(items) => items.len(),
                Json::Object(map) => map.len(),
                _ => 0,
            };
            let mut next = Vec::with_capacity(level.iter().map(inner).sum());
            for json in level {
                match json {
                    Json::Array(items) => next.extend(items),
                    Json::Object(map) => next.extend(map.values()),
                    _ => {}
                }
            }
            level = next;
            depth += 1;
        }
        None
    }
}

impl fmt::Debug for UserConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for UserConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// The JSON that a text meant; none when a number of it has no JSON form.
fn json(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Number(number) => Json::Number(json_number(number)?),
        Value::Text(text) => Json::String(text.clone()),
        Value::List(items) => Json::Array(items.iter().map(|item| json(&item.value)).collect::<Option<_>>()?),
        Value::Map(map) => {
            let entry = |entry: &super::node::Entry| Some((entry.key.clone(), json(&entry.node.value)?));
            Json::Object(map.iter().map(entry).collect::<Option<_>>()?)
        }
    })
}

fn json_number(number: &Number) -> Option<serde_json::Number> {
    match (number.whole, number.text.parse::<u64>()) {
        (Some(whole), _) => Some(whole.into()),
        (None, Ok(large)) => Some(large.into()),
        (None, Err(_)) => serde_json::Number::from_f64(number.float),
    }
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
    fn any_json_is_read_as_it_is_written_and_null_clears_it() {
        let given = json!({"a": [1, -2, 0.5, u64::MAX, "x", null, true], "b": {"c": {}}});
        let update = BackendUpdate::from_json(json!({"user_config": given})).unwrap();
        let config = BackendConfig::default().updated(&update).unwrap();
        assert_eq!(config.user_config.as_ref().unwrap().json(), &given);
        assert_eq!(serde_json::to_value(&config).unwrap()["user_config"], given);
        let same = config.updated(&BackendUpdate::default().num_replicas(2)).unwrap();
        assert_eq!(same.user_config, config.user_config);
        for clear in [BackendUpdate::default().user_config(None), from_json(json!({"user_config": null}))] {
            assert_eq!(config.updated(&clear).unwrap().user_config, None);
        }
    }

    fn from_json(json: serde_json::Value) -> BackendUpdate {
        BackendUpdate::from_json(json).unwrap()
    }

    #[test]
    fn yaml_is_read_as_the_json_that_it_means() {
        let text = "backends:\n  - name: a\n    registered: a\n    user_config: {threshold: 0.5, hex: 0x10, words: [on, 'off']}\n";
        let config = ServeConfig::from_yaml(text, Path::new(".")).unwrap();
        let user = config.backends[0].config.user_config.clone().unwrap();
        assert_eq!(user.json(), &json!({"threshold": 0.5, "hex": 16, "words": ["on", "off"]}));
    }

    #[test]
    fn numbers_that_json_cannot_hold_are_refused_with_their_place() {
        let text = "backends:\n  - name: a\n    registered: a\n    user_config:\n      x: .inf\n";
        let error = ServeConfig::from_yaml(text, Path::new(".")).unwrap_err().to_string();
        assert!(
            error.starts_with("backends[0].user_config (line 5, column 7): it holds a number"),
            "{error}"
        );
    }

    #[test]
    fn one_that_is_too_deep_or_too_large_is_refused() {
        let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
        for (given, what) in [(deep, "32 levels"), (json!(vec![0; 200_000]), "200000 values")] {
            let error = BackendConfig::default().user_config(given).check().unwrap_err();
            let ServeError::InvalidConfig(problems) = error else { panic!("{error}") };
            assert_eq!((problems.len(), &*problems[0].place), (1, "user_config"));
            assert!(problems[0].what.contains(what), "{problems:?}");
        }
    }
}
