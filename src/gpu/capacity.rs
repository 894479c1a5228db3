//! What a device has to give away, share and memory together, counted exactly; and which device a lease is best put on.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use super::{error::GpuError, memory::STEP_BYTES, ticket::CapacityTicket};
use crate::resources::{Fraction, WHOLE};

/// Part of a device's memory kept back for what is not in buffers: pipelines, descriptors, the driver.
const KEPT_BACK_PERCENT: u64 = 5;

/// What a device has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    /// Of its time, in ten-thousandths.
    pub ten_thousandths: u32,
    /// Of its memory, in bytes.
    pub memory_bytes: u64,
}

/// What the leases of one device may have together.
#[derive(Debug)]
pub(crate) struct Capacity {
    memory_bytes: u64,
    free: Mutex<Free>,
    /// Places that have ended and are not free yet.
    leaving: AtomicUsize,
}

impl Capacity {
    /// All of a device with this much memory.
    pub(crate) fn new(device_bytes: u64) -> Self {
        let memory_bytes = device_bytes - device_bytes / 100 * KEPT_BACK_PERCENT;
        let free = Mutex::new(Free { ten_thousandths: WHOLE, memory_bytes });
        Self { memory_bytes, free, leaving: AtomicUsize::new(0) }
    }

    /// What there is when nothing is taken.
    pub(crate) fn all(&self) -> Free {
        Free { ten_thousandths: WHOLE, memory_bytes: self.memory_bytes }
    }

    pub(crate) fn free(&self) -> Free {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The quota of a lease: what it asks for, or its share of the memory.
    pub(crate) fn quota(&self, share: Fraction, asked: Option<u64>) -> u64 {
        asked.unwrap_or_else(|| share.of(self.memory_bytes) / STEP_BYTES * STEP_BYTES)
    }

    /// Takes a share and memory, both or nothing.
    pub(crate) fn take(
        self: &Arc<Self>,
        share: Fraction,
        asked_bytes: Option<u64>,
    ) -> Result<CapacityTicket, GpuError> {
        let memory_bytes = self.quota(share, asked_bytes);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let time = free.ten_thousandths.checked_sub(share.ten_thousandths());
        match (time, free.memory_bytes.checked_sub(memory_bytes)) {
            (Some(ten_thousandths), Some(rest)) => {
                *free = Free { ten_thousandths, memory_bytes: rest };
                Ok(CapacityTicket::new(self, share, memory_bytes))
            }
            _ => Err(refused(share, memory_bytes, &[*free])),
        }
    }

    /// Takes back what a place had.
    pub(super) fn give(&self, share: Fraction, memory_bytes: u64) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.ten_thousandths += share.ten_thousandths();
        free.memory_bytes += memory_bytes;
    }

    /// Whether more will be free soon: a place has ended, and the last slices of its lease run.
    pub(crate) fn is_being_left(&self) -> bool {
        self.leaving.load(Ordering::Acquire) > 0
    }

    pub(super) fn leaves(&self) {
        self.leaving.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn left(&self) {
        self.leaving.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The refusal of what fits nowhere.
pub(crate) fn refused(asked: Fraction, memory_bytes: u64, free: &[Free]) -> GpuError {
    let left: Vec<String> = free
        .iter()
        .enumerate()
        .map(|(device, free)| {
            let share = f64::from(free.ten_thousandths) / f64::from(WHOLE);
            format!("device {device}: {share} and {} bytes", free.memory_bytes)
        })
        .collect();
    let free = if left.is_empty() { "there is no device".to_owned() } else { left.join(", ") };
    GpuError::Unplaceable { asked, memory_bytes, free: free.into() }
}

/// Which device a lease is put on: of those it fits on, the one that it leaves least of, share and memory weighed
/// alike, so that large leases find room later. `needs` are the bytes on each device, since a share of the memory is
/// more on a larger one; `all` is what each device has when nothing is taken.
pub fn place(share: Fraction, needs: &[u64], free: &[Free], all: &[Free]) -> Option<usize> {
    let part = |amount: u64, of: u64| u128::from(amount) * 1_000_000 / u128::from(of.max(1));
    (0..free.len().min(needs.len()).min(all.len()))
        .filter_map(|device| {
            let time = free[device].ten_thousandths.checked_sub(share.ten_thousandths())?;
            let memory = free[device].memory_bytes.checked_sub(needs[device])?;
            let left = part(time.into(), all[device].ten_thousandths.into())
                + part(memory, all[device].memory_bytes);
            Some((left, device))
        })
        .min()
        .map(|(_, device)| device)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(value: f64) -> Fraction {
        Fraction::parse(value).unwrap().unwrap()
    }

    fn free(ten_thousandths: u32, memory_bytes: u64) -> Free {
        Free { ten_thousandths, memory_bytes }
    }

    #[test]
    fn ten_tenths_fit_and_the_eleventh_is_refused_with_what_is_left() {
        let capacity = Arc::new(Capacity::new(100_000));
        let mut tickets: Vec<_> = (0..10).map(|_| capacity.take(share(0.1), Some(9_500)).unwrap()).collect();
        assert_eq!(capacity.free(), free(0, 0), "0.1 ten times is all, exactly");
        let refused = capacity.take(share(0.0001), Some(0)).unwrap_err();
        assert!(refused.to_string().contains("device 0: 0 and 0 bytes"), "{refused}");
        tickets.pop();
        assert!(capacity.take(share(0.1), Some(9_500)).is_ok());
    }

    #[test]
    fn memory_above_the_device_is_refused_and_takes_no_share() {
        let capacity = Arc::new(Capacity::new(100_000));
        assert!(matches!(capacity.take(share(0.5), Some(95_001)), Err(GpuError::Unplaceable { .. })));
        assert_eq!(capacity.free(), free(WHOLE, 95_000));
    }

    #[test]
    fn without_a_number_a_lease_gets_its_share_of_the_memory() {
        let capacity = Arc::new(Capacity::new(1 << 30));
        let ticket = capacity.take(share(0.25), None).unwrap();
        assert_eq!(ticket.memory_bytes, ((1_u64 << 30) - (1 << 30) / 100 * 5) / 4 / 256 * 256);
        assert!((0..3).map(|_| capacity.take(share(0.25), None)).all(|ticket| ticket.is_ok()));
    }

    #[test]
    fn a_lease_goes_where_it_leaves_least() {
        let all = [free(WHOLE, 1000); 3];
        let left = [free(WHOLE, 1000), free(4000, 500), free(3000, 900)];
        assert_eq!(place(share(0.3), &[100; 3], &left, &all), Some(1), "0.1 and 400 are less than 0 and 800");
        assert_eq!(place(share(0.3), &[600; 3], &left, &all), Some(2), "the second has no memory for it");
        assert_eq!(place(share(0.5), &[100; 3], &left, &all), Some(0));
        assert_eq!(place(share(0.5), &[2000; 3], &left, &all), None);
        assert_eq!(place(share(0.5), &[], &[], &[]), None);
    }

    proptest! {
        #[test]
        fn takes_and_drops_in_any_order_leave_all_of_it(
            steps in prop::collection::vec((0_u8..3, 1_u32..=WHOLE, 0_u64..60_000), 1..100),
        ) {
            let capacity = Arc::new(Capacity::new(100_000));
            let mut tickets: Vec<CapacityTicket> = Vec::new();
            for (step, parts, bytes) in steps {
                if step == 0 && !tickets.is_empty() {
                    tickets.swap_remove(bytes as usize % tickets.len());
                } else {
                    tickets.extend(capacity.take(Fraction::from_ten_thousandths(parts).unwrap(), Some(bytes)));
                }
                let time: u32 = tickets.iter().map(|ticket| ticket.share.ten_thousandths()).sum();
                let memory: u64 = tickets.iter().map(|ticket| ticket.memory_bytes).sum();
                prop_assert_eq!(capacity.free(), free(WHOLE - time, 95_000 - memory));
            }
            drop(tickets);
            prop_assert_eq!(capacity.free(), free(WHOLE, 95_000));
        }
    }
}
