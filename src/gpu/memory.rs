//! What each lease holds of a device's memory: reserved before it is made, never above the quota, given back on drop.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::error::GpuError;

/// Memory is counted, and buffers are made, in steps of this many bytes.
pub(crate) const STEP_BYTES: u64 = 256;

/// The bytes that a buffer of this size takes.
pub(crate) fn rounded(bytes: u64) -> u64 {
    bytes.div_ceil(STEP_BYTES).saturating_mul(STEP_BYTES)
}

/// The memory of one lease, buffers and staging together. Shared by whoever makes or drops them.
#[derive(Debug)]
pub(crate) struct MemoryAccount {
    quota: u64,
    /// Held or being made.
    used: AtomicU64,
    /// Held: what the device really has.
    made: AtomicU64,
    peak: AtomicU64,
}

impl MemoryAccount {
    pub(crate) fn new(quota: u64) -> Arc<Self> {
        let zero = AtomicU64::default;
        Arc::new(Self { quota, used: zero(), made: zero(), peak: zero() })
    }

    pub(crate) fn quota(&self) -> u64 {
        self.quota
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    pub(crate) fn made(&self) -> u64 {
        self.made.load(Relaxed)
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    /// Takes room for a buffer that is about to be made.
    ///
    /// # Errors
    /// [`GpuError::QuotaExceeded`], and nothing is taken.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, GpuError> {
        let bytes = rounded(bytes);
        let room = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.quota);
        match self.used.fetch_update(Relaxed, Relaxed, room) {
            Ok(before) => {
                self.peak.fetch_max(before + bytes, Relaxed);
                Ok(Reservation { account: Arc::clone(self), bytes })
            }
            Err(used_bytes) => {
                Err(GpuError::QuotaExceeded { requested_bytes: bytes, used_bytes, quota_bytes: self.quota })
            }
        }
    }
}

/// Room for a buffer that is being made; given back when it was not.
#[derive(Debug)]
pub(crate) struct Reservation {
    account: Arc<MemoryAccount>,
    bytes: u64,
}

impl Reservation {
    /// The buffer was made.
    pub(crate) fn commit(self) -> Charge {
        self.account.made.fetch_add(self.bytes, Relaxed);
        Charge(self)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.account.used.fetch_sub(self.bytes, Relaxed);
    }
}

/// The memory of a buffer that there is; given back with the buffer.
#[derive(Debug)]
pub(crate) struct Charge(Reservation);

impl Charge {
    /// What it is charged.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.0.account.made.fetch_sub(self.0.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicBool, thread};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reservation_that_comes_to_nothing_gives_its_room_back() {
        let account = MemoryAccount::new(1000);
        let reserved = account.reserve(300).unwrap();
        assert_eq!((account.used(), account.made()), (512, 0));
        let charge = reserved.commit();
        assert_eq!((charge.0.bytes, account.made()), (512, 512));
        let refused = account.reserve(512).unwrap_err();
        let told = GpuError::QuotaExceeded { requested_bytes: 512, used_bytes: 512, quota_bytes: 1000 };
        assert_eq!(refused, told);
        drop(account.reserve(200).unwrap());
        drop(charge);
        assert_eq!((account.used(), account.made(), account.peak()), (0, 0, 768));
    }

    #[test]
    fn sizes_beyond_all_numbers_are_refused() {
        let account = MemoryAccount::new(u64::MAX);
        let _some = account.reserve(512).unwrap();
        assert!(account.reserve(u64::MAX).is_err());
    }

    /// Draws what four threads do, 25,000 steps each, while a fifth looks.
    #[test]
    fn a_hundred_thousand_random_steps_on_four_threads_never_pass_the_quota() {
        let account = MemoryAccount::new(1 << 20);
        let done = AtomicBool::new(false);
        let (refused, violations) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            let workers: Vec<_> = (1..=4_u64)
                .map(|seed| {
                    let (account, refused) = (&account, &refused);
                    scope.spawn(move || {
                        let mut draw = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                        let (mut charges, mut reservations) = (Vec::new(), Vec::new());
                        for _ in 0..25_000 {
                            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                            let (what, size) = ((draw >> 60) % 5, (draw >> 33) % 100_000);
                            match what {
                                0 | 1 => match account.reserve(size) {
                                    Ok(reserved) => reservations.push(reserved),
                                    Err(_) => _ = refused.fetch_add(1, Relaxed),
                                },
                                2 => charges.extend(reservations.pop().map(Reservation::commit)),
                                3 => drop(reservations.pop()),
                                _ => drop(
                                    (!charges.is_empty())
                                        .then(|| charges.swap_remove(size as usize % charges.len())),
                                ),
                            }
                        }
                    })
                })
                .collect();
            let watcher = scope.spawn(|| {
                while !done.load(Relaxed) {
                    if account.used() > account.quota() || account.made() > account.quota() {
                        violations.fetch_add(1, Relaxed);
                    }
                    thread::yield_now();
                }
            });
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            done.store(true, Relaxed);
            watcher.join().unwrap();
        });
        assert_eq!(violations.into_inner(), 0);
        assert!(refused.into_inner() > 1000, "the quota was in the way");
        assert!(account.peak() <= account.quota());
        assert_eq!((account.used(), account.made()), (0, 0), "all came back");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_used_is_what_is_held(steps in prop::collection::vec((0_u8..4, 1_u64..5_000), 1..400)) {
            let account = MemoryAccount::new(20_000);
            let mut held: Vec<Charge> = Vec::new();
            for (step, size) in steps {
                if step == 0 {
                    held.pop();
                } else {
                    let before: u64 = held.iter().map(|charge| charge.0.bytes).sum();
                    match account.reserve(size) {
                        Ok(reserved) => held.push(reserved.commit()),
                        Err(_) => prop_assert!(before + rounded(size) > 20_000),
                    }
                }
                let sum: u64 = held.iter().map(|charge| charge.0.bytes).sum();
                prop_assert_eq!((account.used(), account.made()), (sum, sum));
                prop_assert!(sum <= 20_000);
            }
        }
    }
}
