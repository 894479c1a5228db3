//! `Fingerprint`: what tells declared code apart where no version is given.

use std::{fmt, io, io::Read, sync::OnceLock};

use twox_hash::XxHash3_64;

use crate::error::ServeError;

/// Bytes that are hashed at once; the fingerprint hangs on it.
const CHUNK_BYTES: usize = 1 << 20;

/// What tells code apart: a length and a hash of bytes. No proof against those who mean to deceive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    bytes: u64,
    hash: u64,
}

impl Fingerprint {
    /// That of everything that comes out of `source`.
    pub(crate) fn read(mut source: impl Read) -> io::Result<Self> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let (mut bytes, mut hash) = (0, 0);
        loop {
            let mut filled = 0;
            while filled < chunk.len() {
                match source.read(&mut chunk[filled..]) {
                    Ok(0) => break,
                    Ok(more) => filled += more,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            // Each chunk is hashed on top of those before it.
            hash = XxHash3_64::oneshot_with_seed(hash, &chunk[..filled]);
            bytes += filled as u64;
            if filled < chunk.len() {
                return Ok(Self { bytes, hash });
            }
        }
    }

    /// That of this and of a part with a name.
    #[cfg(feature = "onnx")]
    pub(crate) fn with(self, name: &[u8], part: Self) -> Self {
        let more =
            [&(name.len() as u64).to_le_bytes(), name, &part.bytes.to_le_bytes(), &part.hash.to_le_bytes()];
        let hash = XxHash3_64::oneshot_with_seed(self.hash, &more.concat());
        Self { bytes: self.bytes.saturating_add(part.bytes), hash }
    }

    /// That of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        // Nothing that is in memory fails to be read.
        Self::read(bytes).unwrap_or(Self { bytes: 0, hash: 0 })
    }
}

/// Takes a fingerprint.
type Take = Box<dyn Fn() -> Result<Fingerprint, ServeError> + Send + Sync>;

/// A fingerprint that is taken when it is first asked for, and once.
pub(crate) struct Fingerprinted {
    take: Take,
    taken: OnceLock<Fingerprint>,
}

impl fmt::Debug for Fingerprinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.taken)
    }
}

impl Fingerprinted {
    /// One that `take` will take.
    #[cfg(any(feature = "onnx", test))]
    pub(crate) fn by(take: impl Fn() -> Result<Fingerprint, ServeError> + Send + Sync + 'static) -> Self {
        Self { take: Box::new(take), taken: OnceLock::new() }
    }

    /// One that is known.
    pub(crate) fn known(fingerprint: Fingerprint) -> Self {
        Self { take: Box::new(move || Ok(fingerprint)), taken: OnceLock::from(fingerprint) }
    }

    /// Takes it, unless that was done before.
    pub(crate) fn take(&self) -> Result<(), ServeError> {
        if self.taken.get().is_none() {
            let _ = self.taken.set((self.take)()?);
        }
        Ok(())
    }

    /// The fingerprint, once it is taken.
    pub(crate) fn get(&self) -> Option<Fingerprint> {
        self.taken.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let n = into.len().min(self.0.len()).min(4099);
            into[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn the_same_bytes_have_the_same_fingerprint_however_they_come_and_others_another() {
        let bytes: Vec<u8> = (0..3 * CHUNK_BYTES + 17).map(|i| (i % 251) as u8).collect();
        let whole = Fingerprint::of(&bytes);
        assert_eq!(Fingerprint::read(Slow(&bytes)).unwrap(), whole);
        for at in [0, CHUNK_BYTES, bytes.len() - 1] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(Fingerprint::of(&other), whole);
        }
        assert_ne!(Fingerprint::of(&bytes[1..]), whole);
        assert_ne!(Fingerprint::of(b""), Fingerprint::of(b"\0"));
    }

    #[test]
    fn one_that_cannot_be_taken_is_tried_again_and_one_that_was_is_kept() {
        let tries = std::sync::atomic::AtomicU64::new(0);
        let tried =
            Fingerprinted::by(move || match tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => Err(ServeError::invalid("file", "it is missing")),
                n => Ok(Fingerprint::of(&[n as u8])),
            });
        assert!(tried.take().is_err() && tried.get().is_none());
        for _ in 0..2 {
            tried.take().unwrap();
            assert_eq!(tried.get(), Some(Fingerprint::of(&[1])));
        }
    }
}
