//! Names: of backends, endpoints and replicas; checked once, cheap to clone, never parsed back.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::error::ServeError;

/// Longest name accepted, in bytes; names become metric labels and path segments.
pub const NAME_BYTES_MAX: usize = 128;

/// What a name may be, as told in every refusal.
const NAME_RULE: &str =
    "1 to 128 characters: letters, digits, '_', '-', '.' and ':', not starting with '-' or '.'";

fn check(kind: &'static str, name: &str) -> Result<Arc<str>, ServeError> {
    let ok = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with(['-', '.'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'));
    if ok {
        Ok(name.into())
    } else {
        Err(ServeError::invalid(kind, format!("{name:?} is not a valid name; allowed: {NAME_RULE}")))
    }
}

/// 64 bits of a text (XXH3, no seed): the same on every machine and in every version of this program.
pub(crate) fn stable_hash(text: &str) -> u64 {
    twox_hash::XxHash3_64::oneshot(text.as_bytes())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `name` and takes it.
            ///
            /// # Errors
            /// [`ServeError::Invalid`] when it is empty, longer than [`NAME_BYTES_MAX`] or has
            /// other characters than letters, digits, `_ - . :`.
            pub fn new(name: impl AsRef<str>) -> Result<Self, ServeError> {
                check($kind, name.as_ref()).map(Self)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl TryFrom<String> for $name {
            type Error = ServeError;
            fn try_from(name: String) -> Result<Self, ServeError> {
                Self::new(name)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = ServeError;
            fn try_from(name: &str) -> Result<Self, ServeError> {
                Self::new(name)
            }
        }

        impl TryFrom<&$name> for $name {
            type Error = ServeError;
            fn try_from(name: &$name) -> Result<Self, ServeError> {
                Ok(name.clone())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// Name of a backend.
    ///
    /// ```
    /// use greenroom::BackendName;
    /// assert_eq!(BackendName::new("digits")?.as_str(), "digits");
    /// assert!(BackendName::new("no spaces").is_err());
    /// # Ok::<(), greenroom::ServeError>(())
    /// ```
    BackendName,
    "backend name"
);
name_type!(
    /// Name of an endpoint.
    ///
    /// ```
    /// use greenroom::EndpointName;
    /// assert_eq!(EndpointName::new("digits")?.as_str(), "digits");
    /// # Ok::<(), greenroom::ServeError>(())
    /// ```
    EndpointName,
    "endpoint name"
);

impl BackendName {
    /// The name of one of our own actors; those contain no character that is not allowed.
    pub(crate) fn own(name: &'static str) -> Self {
        Self(name.into())
    }
}

/// One live instance of a backend: its slot 0..N-1 is reused and is the metric label,
/// its generation counts the instances that have had this slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ReplicaId {
    /// The backend it is an instance of.
    pub backend: BackendName,
    /// Its place among its siblings, reused when it is replaced.
    pub slot: u32,
    /// How many instances had this slot before it.
    pub generation: u64,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}.{}", self.backend, self.slot, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_tell_the_rule() {
        for bad in ["", "a b", "-a", ".a", "ä", &"x".repeat(129)] {
            let error = BackendName::new(bad).unwrap_err().to_string();
            assert!(error.contains("letters, digits"), "{bad:?}: {error}");
        }
        for good in ["a", "a:b", "model_1.2-rc", &"x".repeat(128)] {
            assert_eq!(BackendName::new(good).unwrap().as_str(), good);
        }
    }
}
