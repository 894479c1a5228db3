//! What travels with a call beside its message: request id, deadline, trace, shard key.

use std::{
    cell::{Cell, RefCell},
    fmt,
    sync::Arc,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use crate::{error::ServeError, ids::stable_hash};

mod explanation;

pub(crate) use explanation::Explain;
pub use explanation::{Explanation, RoutingRule};

/// Longest request id or trace header that is taken over from a caller, in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// Identity of a request, made here or taken over from the caller.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(IdKind);

#[derive(Clone, PartialEq, Eq, Hash)]
enum IdKind {
    Made([u64; 2]),
    Given(Arc<str>),
}

impl RequestId {
    /// A new id from this thread's generator: 128 random bits, no system call.
    pub fn generate() -> Self {
        Self(IdKind::Made(with_rng(|rng| [rng.random(), rng.random()])))
    }

    /// Takes over an id that the caller sent.
    ///
    /// # Errors
    /// [`ServeError::BadRequest`] unless it has 1 to [`ID_BYTES_MAX`] visible ASCII characters.
    pub fn given(id: &str) -> Result<Self, ServeError> {
        let visible = id.bytes().all(|b| b.is_ascii_graphic());
        if visible && !id.is_empty() && id.len() <= ID_BYTES_MAX {
            Ok(Self(IdKind::Given(id.into())))
        } else {
            Err(ServeError::bad_request(format!(
                "a request id must have 1 to {ID_BYTES_MAX} visible ASCII characters"
            )))
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            IdKind::Made([high, low]) => write!(f, "{high:016x}{low:016x}"),
            IdKind::Given(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

/// The caller's affinity hint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShardKey {
    text: Arc<str>,
    hash: u64,
}

impl ShardKey {
    /// A shard key; any text.
    pub fn new(key: impl AsRef<str>) -> Self {
        let text = key.as_ref();
        Self { text: text.into(), hash: stable_hash(text) }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What decides where its requests go.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

/// What travels with a call. It is current while a handler is polled, and calls made then inherit it.
#[derive(Clone, Debug)]
pub struct Meta {
    /// Identity of the request; the same in every call made on its behalf.
    pub request_id: RequestId,
    /// The instant by which all ends.
    pub deadline: Option<Instant>,
    /// The caller's trace context, a W3C `traceparent` value.
    pub trace: Option<Arc<str>>,
    /// The caller's affinity hint.
    pub shard_key: Option<ShardKey>,
    /// Whether the shard key chooses the replica too; said by each endpoint on the way.
    pub(crate) keeps_replica: bool,
    /// Whether nobody waits for it: a copy for a shadow backend, or a call made on behalf of one. Gates keep half
    /// of their room from them.
    pub(crate) copy: bool,
    /// Whether the deadline is the `request_timeout` of the backend that was asked, not one that its caller has.
    pub(crate) own_timeout: bool,
    /// Where it is written down which way the call goes, for a caller that asked; calls made on behalf of this
    /// one do not write there.
    pub(crate) explain: Option<Explain>,
}

impl Meta {
    /// Meta of a request that nobody made on behalf of another.
    pub fn new() -> Self {
        Self::of(RequestId::generate())
    }

    /// Meta of a request with this id and nothing else.
    pub(crate) fn of(request_id: RequestId) -> Self {
        Self {
            request_id,
            deadline: None,
            trace: None,
            shard_key: None,
            keeps_replica: false,
            copy: false,
            own_timeout: false,
            explain: None,
        }
    }

    /// Meta for a copy of the call that nobody waits for.
    pub(crate) fn for_copy(&self) -> Self {
        Self { copy: true, ..self.for_child() }
    }

    /// Meta for a call made on behalf of this one.
    pub(crate) fn for_child(&self) -> Self {
        Self { explain: None, ..self.clone() }
    }

    /// Meta for a call made now: inherits from the call being handled on this thread, if any.
    pub fn inherit() -> Self {
        Self::current().unwrap_or_default()
    }

    /// Meta of the call being handled on this thread at this moment.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(|stack| stack.last().map(Self::for_child))
    }

    /// Whether the deadline has passed.
    pub fn expired(&self) -> bool {
        self.deadline.is_some_and(|at| at <= Instant::now())
    }

    /// The tighter one of the present deadline and `at`.
    pub fn tighten(&mut self, at: Instant) {
        self.deadline = Some(self.deadline.map_or(at, |old| old.min(at)));
    }

    /// The backend that is asked gives its requests until `at`.
    pub(crate) fn limit(&mut self, at: Instant) {
        self.own_timeout = self.deadline.is_none_or(|old| at < old);
        self.tighten(at);
    }

    /// When the time is over that the backend itself gives its requests, if that is the deadline.
    pub(crate) fn own_limit(&self) -> Option<Instant> {
        self.deadline.filter(|_| self.own_timeout)
    }

    /// Whether that time is over.
    pub(crate) fn timed_out(&self) -> bool {
        self.own_timeout && self.expired()
    }

    /// Makes this current on this thread until the guard is dropped or left.
    #[inline]
    pub(crate) fn enter(self) -> Entered {
        CURRENT.with_borrow_mut(|stack| stack.push(self));
        Entered(())
    }

    /// Runs `f` with this current; it is back with its owner afterwards, also after a panic.
    pub(crate) fn scope<T>(&mut self, f: impl FnOnce() -> T) -> T {
        struct Back<'a>(&'a mut Meta, Option<Entered>);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                if let Some(meta) = self.1.take().and_then(Entered::leave) {
                    *self.0 = meta;
                }
            }
        }
        // Moved in and out again: a clone would touch the counters of its parts at every poll.
        let own = std::mem::replace(self, Self::of(RequestId(IdKind::Made([0, 0]))));
        let entered = own.enter();
        let _back = Back(self, Some(entered));
        f()
    }
}

/// A meta is current on this thread; those entered later have been left before.
pub(crate) struct Entered(());

impl Entered {
    /// Takes the meta back.
    pub(crate) fn leave(self) -> Option<Meta> {
        std::mem::forget(self);
        CURRENT.with_borrow_mut(Vec::pop)
    }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        let meta = CURRENT.with_borrow_mut(Vec::pop);
        drop(meta);
    }
}

impl Default for Meta {
    fn default() -> Self {
        Self::new()
    }
}

thread_local! {
    static CURRENT: RefCell<Vec<Meta>> = const { RefCell::new(Vec::new()) };
    static RNG: RefCell<SmallRng> = RefCell::new(SmallRng::from_rng(&mut rand::rng()));
    static THREAD: Cell<u64> = const { Cell::new(0) };
}

/// Runs `f` with this thread's small generator: for ids and for routing, never for secrets.
pub(crate) fn with_rng<T>(f: impl FnOnce(&mut SmallRng) -> T) -> T {
    RNG.with_borrow_mut(f)
}

/// Identity of the running thread: never zero, never reused.
pub(crate) fn thread_token() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    THREAD.with(|cell| {
        if cell.get() == 0 {
            cell.set(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        }
        cell.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_left_even_by_a_panic() {
        let mut meta = Meta::new();
        let id = meta.request_id.clone();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            meta.scope(|| {
                assert_eq!(Meta::current().map(|m| m.request_id), Some(id.clone()));
                panic!("out");
            })
        }));
        assert!(result.is_err());
        assert!(Meta::current().is_none());
        assert_eq!(meta.request_id, id, "the meta is back with its owner");
    }

    #[test]
    fn scopes_nest() {
        let (mut outer, mut inner) = (Meta::new(), Meta::new());
        let (a, b) = (outer.request_id.clone(), inner.request_id.clone());
        outer.scope(|| {
            inner.scope(|| assert_eq!(Meta::current().map(|m| m.request_id), Some(b)));
            assert_eq!(Meta::current().map(|m| m.request_id), Some(a));
        });
    }

    #[test]
    fn a_limit_is_the_backends_own_unless_a_callers_deadline_is_tighter() {
        let now = Instant::now();
        let after = |seconds| now + std::time::Duration::from_secs(seconds);
        for (deadline, own) in [(None, true), (Some(9), true), (Some(5), false), (Some(1), false)] {
            let mut meta = Meta { deadline: deadline.map(after), ..Meta::new() };
            meta.limit(after(5));
            assert_eq!(meta.deadline, Some(after(deadline.unwrap_or(5).min(5))));
            assert_eq!(meta.own_limit(), own.then(|| after(5)), "{deadline:?}");
            assert!(!meta.timed_out());
        }
        let mut meta = Meta::new();
        meta.limit(now);
        assert!(meta.timed_out());
    }

    #[test]
    fn request_ids_differ_and_given_ones_are_checked() {
        assert_ne!(RequestId::generate(), RequestId::generate());
        assert_eq!(RequestId::given("abc-1").unwrap().to_string(), "abc-1");
        for bad in ["", "a b", "a\nb", &"x".repeat(129)] {
            assert!(RequestId::given(bad).is_err(), "{bad:?}");
        }
    }
}
