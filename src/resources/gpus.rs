//! `Gpus`: what is free of each GPU, share and memory together; a share is one of a single device.

use super::{
    asked::Resources,
    fraction::{Fraction, WHOLE},
    shortage::{Lack, Unit},
};

/// Memory of a share is given out in steps of this many bytes, as devices do.
const STEP_BYTES: u64 = 256;

/// The GPUs that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gpus {
    each: Vec<Gpu>,
    /// How many a capacity may say that there are; none: any number, as nobody has looked.
    most: Option<u32>,
}

/// What is free of one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Gpu {
    /// In ten-thousandths.
    parts: u32,
    /// None: it is not known how much memory it has, and any amount fits.
    memory: Option<Memory>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    all: u64,
    free: u64,
}

impl Gpu {
    /// The memory that a replica gets here: what it asks for, or its share of all.
    fn needs(&self, share: Fraction, asked_bytes: u64) -> u64 {
        match self.memory {
            Some(memory) if asked_bytes == 0 => share.of(memory.all) / STEP_BYTES * STEP_BYTES,
            _ => asked_bytes,
        }
    }

    fn has_room(&self, share: Fraction, asked_bytes: u64) -> bool {
        let memory = self.memory.is_none_or(|memory| memory.free >= self.needs(share, asked_bytes));
        memory && self.parts >= parts(share)
    }

    fn take(&mut self, share: Fraction, asked_bytes: u64) {
        let bytes = self.needs(share, asked_bytes);
        self.parts -= parts(share);
        if let Some(memory) = &mut self.memory {
            memory.free -= bytes;
        }
    }

    fn give_back(&mut self, share: Fraction, asked_bytes: u64) {
        let bytes = self.needs(share, asked_bytes);
        self.parts += parts(share);
        if let Some(memory) = &mut self.memory {
            memory.free += bytes;
        }
    }
}

/// Of one device.
fn parts(share: Fraction) -> u32 {
    share.ten_thousandths().min(WHOLE)
}

impl Gpus {
    /// So many, of which nothing else is known.
    pub(super) fn counted(count: u32) -> Self {
        Self { each: (0..count).map(|_| Gpu { parts: WHOLE, memory: None }).collect(), most: None }
    }

    /// Those with so much memory each, of `most` that there are.
    #[cfg(any(feature = "gpu", test))]
    pub(super) fn with_memory(bytes: impl IntoIterator<Item = u64>, most: Option<u32>) -> Self {
        let gpu = |all| Gpu { parts: WHOLE, memory: Some(Memory { all, free: all }) };
        Self { each: bytes.into_iter().map(gpu).collect(), most }
    }

    /// The same, of which nobody has any; whatever their memory.
    pub(super) fn unused(&self) -> Self {
        Self { most: self.most, ..Self::counted(self.len()) }
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.each.len()).unwrap_or(u32::MAX)
    }

    /// Ten-thousandths that are free, of all together.
    pub(super) fn free(&self) -> u64 {
        self.each.iter().map(|gpu| u64::from(gpu.parts)).sum()
    }

    /// Takes a share of the devices `at` these places if they have room, else of the fullest device that has room for
    /// it, or whole devices that nobody has any of.
    pub(super) fn place(&mut self, asked: &Resources, at: &[usize]) -> Option<Vec<usize>> {
        let Some(share) = asked.num_gpus else { return Some(Vec::new()) };
        let bytes = asked.gpu_memory_bytes;
        let room = |at: &usize| self.each.get(*at).is_some_and(|gpu| gpu.has_room(share, bytes));
        if at.len() == share.whole_devices().unwrap_or(1) as usize && at.iter().all(room) {
            at.iter().for_each(|at| self.each[*at].take(share, bytes));
            return Some(at.to_vec());
        }
        self.place_share(share, bytes)
    }

    fn place_share(&mut self, share: Fraction, bytes: u64) -> Option<Vec<usize>> {
        let count = share.whole_devices().unwrap_or(1) as usize;
        let mut room: Vec<_> =
            (0..self.each.len()).filter(|gpu| self.each[*gpu].has_room(share, bytes)).collect();
        room.sort_by_key(|gpu| self.each[*gpu].parts);
        room.truncate(count);
        if room.len() < count {
            return None;
        }
        room.iter().for_each(|gpu| self.each[*gpu].take(share, bytes));
        Some(room)
    }

    /// Takes back what [`place`](Self::place) gave.
    pub(super) fn release(&mut self, asked: &Resources, gpus: &[usize]) {
        let Some(share) = asked.num_gpus else { return };
        for gpu in gpus {
            if let Some(gpu) = self.each.get_mut(*gpu) {
                gpu.give_back(share, asked.gpu_memory_bytes);
            }
        }
    }

    /// What there is too little of for `n` replicas, and how much more is needed.
    pub(super) fn lack(&self, asked: &Resources, n: u32) -> Option<Lack> {
        let share = asked.num_gpus?;
        if self.fits(asked, n) {
            return None;
        }
        self.lack_of_shares(asked, share, n).or_else(|| self.lack_of_memory(asked, share, n))
    }

    fn fits(&self, asked: &Resources, n: u32) -> bool {
        let mut left = self.clone();
        (0..n).all(|_| left.place(asked, &[]).is_some())
    }

    /// Too few devices, whatever their memory.
    fn lack_of_shares(&self, asked: &Resources, share: Fraction, n: u32) -> Option<Lack> {
        let mut left =
            Self { each: self.each.iter().map(|gpu| Gpu { memory: None, ..*gpu }).collect(), ..*self };
        let placed = (0..n).map_while(|_| left.place_share(share, 0)).count() as u32;
        if placed == n {
            return None;
        }
        let unused = left.each.iter().filter(|gpu| gpu.parts == WHOLE).count() as u32;
        let more = match share.whole_devices() {
            Some(whole) => (n - placed).saturating_mul(whole) - unused,
            None => (n - placed).div_ceil(WHOLE / share.ten_thousandths()),
        };
        let total_min = self.len().saturating_add(more);
        let there = self.most.is_none_or(|most| total_min <= most);
        let each_max = self.share_max(asked, share, n);
        let parts = |gpus: u32| u64::from(gpus) * u64::from(WHOLE);
        Some(Lack {
            key: "num_gpus".into(),
            unit: Unit::Parts,
            each: share.ten_thousandths().into(),
            free: self.free(),
            total: parts(self.len()),
            each_max: each_max.map(|share| share.ten_thousandths().into()),
            total_min: there.then_some(parts(total_min)),
            more_gpus: if there { 0 } else { more },
        })
    }

    /// The largest share below this one that `n` replicas can have.
    fn share_max(&self, asked: &Resources, share: Fraction, n: u32) -> Option<Fraction> {
        let fits = |parts: u32| {
            let share = Fraction::from_ten_thousandths(parts)?;
            let mut less = asked.clone();
            less.num_gpus = Some(share);
            self.fits(&less, n).then_some(share)
        };
        let whole = (1..share.whole_devices().unwrap_or(1)).rev().find_map(|gpus| fits(gpus * WHOLE));
        whole.or_else(|| {
            let (mut found, mut too_much) = (None, parts(share));
            let mut below = 0;
            while too_much - below > 1 {
                let middle = below + (too_much - below) / 2;
                match fits(middle) {
                    Some(share) => (found, below) = (Some(share), middle),
                    None => too_much = middle,
                }
            }
            found
        })
    }

    /// Too little memory on each of the devices that have the share.
    fn lack_of_memory(&self, asked: &Resources, share: Fraction, n: u32) -> Option<Lack> {
        let known = || self.each.iter().filter_map(|gpu| gpu.memory.map(|memory| (gpu, memory)));
        let with_share = known().filter(|(gpu, _)| gpu.parts >= parts(share));
        let free = with_share.map(|(_, memory)| memory.free).max().unwrap_or(0);
        let total = known().map(|(_, memory)| memory.all).max().unwrap_or(0);
        let each = known().map(|(gpu, _)| gpu.needs(share, asked.gpu_memory_bytes)).max().unwrap_or(0);
        // The most that fits; 0 would ask for a share of all memory.
        let (mut fits, mut too_much) = (0, each);
        while too_much - fits > STEP_BYTES {
            let middle = fits + (too_much - fits) / 2;
            if self.fits(&asked.clone().gpu_memory_bytes(middle), n) {
                fits = middle;
            } else {
                too_much = middle;
            }
        }
        Some(Lack {
            key: "gpu_memory_bytes".into(),
            unit: Unit::Bytes,
            each,
            free,
            total,
            each_max: (fits > 0).then_some(fits / STEP_BYTES * STEP_BYTES).filter(|bytes| *bytes > 0),
            total_min: None,
            more_gpus: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(gpus: f64, bytes: u64) -> Resources {
        Resources::none().num_gpus(gpus).gpu_memory_bytes(bytes)
    }

    #[test]
    fn share_and_memory_are_placed_together() {
        let mut gpus = Gpus::with_memory([1000 * 256, 8000 * 256], Some(2));
        assert_eq!(
            gpus.place(&asked(0.1, 5000 * 256), &[]),
            Some(vec![1]),
            "the first has too little memory"
        );
        assert_eq!(gpus.place(&asked(0.1, 4000 * 256), &[]), None, "3000 are left of the second's");
        assert_eq!(
            gpus.place(&asked(0.5, 0), &[]),
            Some(vec![0]),
            "half of its memory is 500, of the second's 4000"
        );
    }

    #[test]
    fn what_is_given_back_is_what_was_taken() {
        let untouched = Gpus::with_memory([1000 * 256, 8000 * 256], Some(2));
        let mut gpus = untouched.clone();
        let wishes = [asked(0.25, 0), asked(0.25, 300), asked(1.0, 0)];
        let taken: Vec<_> = wishes.iter().map(|wish| gpus.place(wish, &[]).unwrap()).collect();
        assert_ne!(gpus, untouched);
        wishes.iter().zip(&taken).for_each(|(wish, taken)| gpus.release(wish, taken));
        assert_eq!(gpus, untouched);
    }

    #[test]
    fn a_claim_stays_where_it_is_while_there_is_room() {
        let mut gpus = Gpus::with_memory([1000 * 256, 1000 * 256], Some(2));
        assert_eq!(gpus.place(&asked(0.5, 0), &[1]), Some(vec![1]));
        assert_eq!(gpus.place(&asked(0.6, 0), &[1]), Some(vec![0]), "the second has too little left");
    }

    #[test]
    fn memory_above_the_device_is_told_with_what_would_fit() {
        let gpus = Gpus::with_memory([1000 * 256], Some(2));
        let lack = gpus.lack(&asked(0.1, 2000 * 256), 2).unwrap();
        assert_eq!((lack.key.as_str(), lack.free, lack.total), ("gpu_memory_bytes", 256_000, 256_000));
        assert_eq!(lack.each_max, Some(500 * 256));
        assert!(gpus.fits(&asked(0.1, 500 * 256), 2));
        assert!(gpus.lack(&asked(0.1, 500 * 256), 2).is_none());
    }
}
