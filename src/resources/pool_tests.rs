//! What the pool promises: never more claimed than there is, all of it given back, and the number that fits is right.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*};

use super::{Amount, Capacity, Claim, Pool, Resources};

fn asked(cpus: f64) -> Resources {
    Resources::default().num_cpus(cpus)
}

fn admit(pool: &mut Pool, asked: &Resources, n: u32) -> Result<Vec<Claim>, (u32, String)> {
    pool.admit(&Arc::new(asked.clone()), n).map_err(|short| {
        (short.fit, format!("{}; {}; {}", short.asked(), short.free(), short.cures(short.fit)))
    })
}

#[test]
fn two_halves_fit_on_one_and_a_third_is_told_what_would_make_it_fit() {
    let mut pool = Pool::new(Capacity::default().num_cpus(1.0));
    let first = admit(&mut pool, &asked(0.5), 1).unwrap();
    let second = admit(&mut pool, &asked(0.5), 1).unwrap();
    let (fit, why) = admit(&mut pool, &asked(0.5), 1).unwrap_err();
    assert_eq!(fit, 0);
    assert_eq!(
        why,
        "num_cpus 0.5; num_cpus 0 of 1; set resources.num_cpus to at most 0, \
         or capacity.num_cpus to at least 1.5"
    );
    first.into_iter().chain(second).for_each(|claim| pool.release(claim));
    assert_eq!(admit(&mut pool, &asked(0.5), 2).unwrap().len(), 2);
}

#[test]
fn three_tenths_are_ten_times_three_hundredths() {
    let mut pool = Pool::new(Capacity::default().num_cpus(0.3));
    assert_eq!(admit(&mut pool, &asked(0.1), 3).unwrap().len(), 3);
    assert_eq!(pool.free().num_cpus, Some(Amount::ZERO));
}

#[test]
fn everything_that_is_short_is_told_at_once() {
    let there = Capacity::default().num_cpus(2.0).memory_bytes(100).custom("license", 1.0);
    let mut pool = Pool::new(there);
    let wish = asked(1.0).memory_bytes(40).custom("license", 0.5).custom("tpu", 1.0).num_gpus(1.0);
    let (fit, why) = admit(&mut pool, &wish, 3).unwrap_err();
    assert_eq!(fit, 0);
    assert_eq!(
        why,
        "num_cpus 1, num_gpus 1, memory_bytes 40, custom.license 0.5, custom.tpu 1; num_cpus 2 of 2, num_gpus 0 of 0, \
         memory_bytes 100 of 100, custom.license 1 of 1, custom.tpu 0 of 0; set \
         capacity.num_cpus to at least 3 and capacity.num_gpus to at least 3 and capacity.memory_bytes to at least 120 \
         and capacity.custom.license to at least 1.5 and capacity.custom.tpu to at least 3"
    );
}

#[test]
fn a_share_is_one_of_a_single_gpu() {
    let mut pool = Pool::new(Capacity::default().num_gpus(2));
    let wish = asked(0.0).num_gpus(0.6);
    let (fit, why) = admit(&mut pool, &wish, 3).unwrap_err();
    assert_eq!(fit, 2, "though 1.8 of 2 would be enough");
    assert!(why.ends_with("or capacity.num_gpus to at least 3"), "{why}");
    let small = admit(&mut pool, &asked(0.0).num_gpus(0.4), 1).unwrap();
    let whole = admit(&mut pool, &asked(0.0).num_gpus(1.0), 1).unwrap();
    let next = admit(&mut pool, &asked(0.0).num_gpus(0.6), 1).unwrap();
    assert_eq!(pool.free().num_gpus, Some(Amount::ZERO));
    small.into_iter().chain(whole).chain(next).for_each(|claim| pool.release(claim));
    let (fit, why) = admit(&mut pool, &asked(0.0).num_gpus(2.0), 2).unwrap_err();
    assert!(fit == 1 && why.ends_with("capacity.num_gpus to at least 4"), "{fit} {why}");
}

/// A pool whose GPUs somebody has counted.
#[cfg(feature = "gpu")]
fn found(gpus: usize, most: u32) -> Pool {
    let mut pool = Pool::new(Capacity::default().num_cpus(2.0));
    pool.found_gpus(vec![1 << 20; gpus], Some(most));
    pool
}

#[cfg(feature = "gpu")]
#[test]
fn gpus_that_there_are_not_are_none_that_can_be_set() {
    let cure = |pool: &mut Pool, gpus, n| {
        let (_, why) = admit(pool, &asked(0.0).num_gpus(gpus), n).unwrap_err();
        why.rsplit_once(" of ").unwrap().1.to_owned()
    };
    let mut pool = found(1, 1);
    let held = admit(&mut pool, &asked(0.0).num_gpus(0.6), 1).unwrap();
    assert_eq!(
        cure(&mut pool, 0.6, 1),
        "1; set resources.num_gpus to at most 0.4; otherwise it needs another GPU"
    );
    assert_eq!(
        cure(&mut pool, 1.0, 3),
        "1; set resources.num_gpus to at most 0.1333; otherwise it needs 3 more GPUs"
    );
    held.into_iter().for_each(|claim| pool.release(claim));
    let held = admit(&mut pool, &asked(0.0).num_gpus(1.0), 1).unwrap();
    assert_eq!(cure(&mut pool, 0.6, 1), "1; it needs another GPU");
    held.into_iter().for_each(|claim| pool.release(claim));
    assert_eq!(
        cure(&mut pool, 0.75, 2),
        "1; set num_replicas to at most 1, or resources.num_gpus to at most 0.5; otherwise it needs another GPU"
    );
    assert_eq!(
        cure(&mut found(3, 3), 4.0, 1),
        "3; set resources.num_gpus to at most 3; otherwise it needs another GPU"
    );
    assert_eq!(
        cure(&mut pool.unused(), 2.0, 1),
        cure(&mut found(1, 1), 2.0, 1),
        "nor in what there may ever be"
    );
    let (_, why) = admit(&mut found(0, 0), &asked(3.0).num_gpus(1.0), 1).unwrap_err();
    assert!(why.ends_with("; set capacity.num_cpus to at least 3 with another GPU"), "{why}");
}

#[cfg(feature = "gpu")]
#[test]
fn gpus_that_the_capacity_leaves_out_can_be_set() {
    let told = |gpus| admit(&mut found(1, 2), &asked(0.0).num_gpus(gpus), 1).unwrap_err().1;
    assert!(told(2.0).ends_with("; set resources.num_gpus to at most 1, or capacity.num_gpus to at least 2"));
    assert!(told(3.0).ends_with("; set resources.num_gpus to at most 1; otherwise it needs 2 more GPUs"));
}

#[test]
fn what_is_not_counted_always_fits() {
    let mut pool = Pool::new(Capacity::unlimited());
    let wish = asked(1e6).num_gpus(64.0).memory_bytes(u64::MAX).custom("x", 1e6);
    let claims = admit(&mut pool, &wish, 100).unwrap();
    claims.into_iter().for_each(|claim| pool.release(claim));
    assert_eq!(pool.free(), Pool::new(Capacity::unlimited()).free());
    let mut counted = Pool::new(Capacity::default());
    assert!(
        admit(&mut counted, &asked(0.0).memory_bytes(u64::MAX), 2).is_ok(),
        "memory is not counted unless set"
    );
}

#[test]
fn beyond_the_cpus_that_there_are_others_wait_until_they_are_given_back() {
    let mut pool = Pool::new(Capacity::default().num_cpus(1.5).memory_bytes(30));
    let wish = Arc::new(asked(1.0).memory_bytes(10));
    let held = pool.admit(&wish, 1).unwrap();
    let beyond = pool.admit_beyond_cpus(&wish, 7);
    assert_eq!(beyond.len(), 2, "memory is not given beyond what there is");
    assert_eq!(pool.free().num_cpus, Some(Amount::ZERO), "nobody is shown less than nothing");
    assert!(admit(&mut pool, &asked(0.1), 1).is_err());
    assert!(admit(&mut pool, &asked(0.0), 1).is_ok(), "who asks for none is not concerned");
    for claim in beyond {
        assert!(admit(&mut pool, &asked(0.1), 1).is_err());
        pool.release(claim);
    }
    assert_eq!(admit(&mut pool, &asked(0.5), 1).unwrap().len(), 1);
    assert!(admit(&mut pool, &asked(0.1), 1).is_err());
    held.into_iter().for_each(|claim| pool.release(claim));
}

#[test]
fn what_is_held_counts_as_free_for_what_takes_its_place() {
    let mut pool = Pool::new(Capacity::default().num_cpus(4.0).num_gpus(2));
    let small = Arc::new(asked(1.0).num_gpus(0.5));
    let large = Arc::new(asked(2.0).num_gpus(1.0));
    let mut held = pool.admit(&small, 2).unwrap();
    let before = pool.free();
    assert_eq!(pool.exchange(&mut held, &large, 3, 0).unwrap_err().fit, 2);
    assert_eq!((pool.free(), held.len()), (before.clone(), 2), "a refusal changes nothing");
    pool.exchange(&mut held, &large, 2, 0).unwrap();
    assert_eq!(pool.free().num_cpus, Some(Amount::ZERO));
    let beyond = pool.admit_beyond_cpus(&Arc::new(asked(1.0)), 1);
    pool.lessen(&mut held, &small);
    assert_eq!(held.len(), 2);
    beyond.into_iter().for_each(|claim| pool.release(claim));
    assert_eq!(pool.free(), before);
}

/// Resources in ten-thousandths of CPUs and a license, hundredths of GPUs and bytes.
fn wish() -> impl Strategy<Value = Resources> {
    let gpus = prop_oneof![Just(0.0), (1_u32..=100).prop_map(|n| f64::from(n) / 100.0), Just(2.0)];
    (0_u32..20_000, 0_u64..50, 0_u32..30_000, gpus).prop_map(|(cpus, memory, license, gpus)| {
        asked(f64::from(cpus) / 1e4)
            .memory_bytes(memory)
            .custom("license", f64::from(license) / 1e4)
            .num_gpus(gpus)
    })
}

fn there() -> impl Strategy<Value = Capacity> {
    (0_u32..100_000, 0_u64..200, 0_u32..80_000, 0_u32..4).prop_map(|(cpus, memory, license, gpus)| {
        let capacity =
            Capacity::default().num_cpus(f64::from(cpus) / 1e4).memory_bytes(memory).num_gpus(gpus);
        capacity.custom("license", f64::from(license) / 1e4)
    })
}

/// What all these ask for together: CPUs, memory, licenses, GPUs.
fn sums<'a>(held: impl Iterator<Item = &'a (Resources, Vec<Claim>)>) -> [u64; 4] {
    held.fold([0; 4], |[cpus, memory, licenses, gpus], (asked, claims)| {
        let n = claims.len() as u64;
        let license = asked.custom.get("license").map_or(0, |amount| amount.ten_thousandths());
        let share = asked.num_gpus.map_or(0, |share| u64::from(share.ten_thousandths()));
        [
            cpus + n * asked.num_cpus.ten_thousandths(),
            memory + n * asked.memory_bytes,
            licenses + n * license,
            gpus + n * share,
        ]
    })
}

fn parts(amount: Option<Amount>) -> u64 {
    amount.unwrap().ten_thousandths()
}

proptest! {
    #[test]
    fn never_more_is_claimed_than_there_is_and_all_of_it_is_given_back(
        there in there(),
        steps in vec((wish(), 0_u32..6, any::<proptest::sample::Index>(), any::<bool>()), 0..40),
    ) {
        let mut pool = Pool::new(there.clone());
        let untouched = pool.free();
        let mut held: Vec<(Resources, Vec<Claim>)> = Vec::new();
        for (asked, n, which, give_back) in steps {
            if give_back && !held.is_empty() {
                let (_, claims) = held.swap_remove(which.index(held.len()));
                claims.into_iter().for_each(|claim| pool.release(claim));
            } else {
                let before = pool.free();
                match admit(&mut pool, &asked, n) {
                    Ok(claims) => {
                        prop_assert_eq!(claims.len(), n as usize);
                        held.push((asked, claims));
                    }
                    Err((fit, _)) => {
                        prop_assert_eq!(pool.free(), before, "a refusal changes nothing");
                        prop_assert!(fit < n);
                        prop_assert!(admit(&mut pool, &asked, fit + 1).is_err(), "no more than said fit");
                        let claims = admit(&mut pool, &asked, fit).unwrap();
                        held.push((asked, claims));
                    }
                }
            }
            let [cpus, memory, licenses, gpus] = sums(held.iter());
            let free = pool.free();
            prop_assert_eq!(parts(free.num_cpus) + cpus, parts(there.num_cpus));
            prop_assert_eq!(free.memory_bytes.unwrap() + memory, there.memory_bytes.unwrap());
            let license = |custom: &Option<std::collections::BTreeMap<String, Amount>>| {
                custom.as_ref().unwrap()["license"].ten_thousandths()
            };
            prop_assert_eq!(license(&free.custom) + licenses, license(&there.custom));
            prop_assert_eq!(parts(free.num_gpus) + gpus, u64::from(there.num_gpus.unwrap()) * 10_000);
        }
        held.into_iter().flat_map(|(_, claims)| claims).for_each(|claim| pool.release(claim));
        prop_assert_eq!(pool.free(), untouched);
    }

    #[test]
    fn each_cure_cures(there in there(), asked in wish(), n in 1_u32..8) {
        let Err(short) = Pool::new(there.clone()).admit(&Arc::new(asked.clone()), n) else { return Ok(()) };
        let mut more = there.clone();
        let mut less = Some(asked.clone());
        for lack in &short.lacks {
            let f = |count: u64| Amount::of_parts(count).as_f64();
            more = match lack.key.as_str() {
                "num_cpus" => more.num_cpus(f(lack.total_min.unwrap())),
                "num_gpus" => more.num_gpus(f(lack.total_min.unwrap()) as u32),
                "memory_bytes" => more.memory_bytes(lack.total_min.unwrap()),
                _ => more.custom("license", f(lack.total_min.unwrap())),
            };
            less = less.and_then(|less| Some((less, lack.each_max?))).map(|(less, max)| match lack.key.as_str() {
                "num_cpus" => less.num_cpus(f(max)),
                "memory_bytes" => less.memory_bytes(max),
                "num_gpus" => less.num_gpus(f(max)),
                _ => less.custom("license", f(max)),
            });
        }
        prop_assert!(!short.lacks.is_empty());
        prop_assert!(Pool::new(more).admit(&Arc::new(asked), n).is_ok(), "with more capacity");
        if let Some(less) = less {
            prop_assert!(Pool::new(there).admit(&Arc::new(less), n).is_ok(), "with less asked for");
        }
    }
}
