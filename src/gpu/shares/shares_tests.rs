//! What sharing promises, on a simulated device: errors, caps, latencies, and a control that must fail.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    Next, Order, Part, ShareOptions, SharePolicy, Shares,
    simulator_tests::{Caller, Machine, Run, Sends, run},
};
use crate::resources::Fraction;

const MS: Duration = Duration::from_millis(1);
const BURST: Duration = Duration::from_millis(100);

fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

/// Options whose slices are not bounded: the simulator cuts the jobs itself.
fn options(depth_max: usize) -> ShareOptions {
    ShareOptions { depth_max, slice_max: Duration::from_secs(1), ..ShareOptions::default() }
}

/// A quarter with jobs ten times as long as those of the three quarters.
fn unequal(outstanding: usize) -> [Caller; 2] {
    [Caller::busy(0.25, 2 * MS, outstanding), Caller::busy(0.75, us(200), outstanding)]
}

fn print(name: &str, run: &Run, share: f64) {
    let (mean, worst) = run.window_error(0, share);
    println!(
        "{name}: share {:.4}, window error mean {:.2} % worst {:.2} %, busy {:.3}",
        run.share(0),
        mean * 100.0,
        worst * 100.0,
        run.busy()
    );
}

#[test]
fn shares_hold_in_every_second_with_jobs_of_unequal_length_and_the_device_stays_busy() {
    for depth in [2, 4] {
        let run = run(Machine::new(options(depth)), &unequal(16));
        print(&format!("depth {depth}"), &run, 0.25);
        let (mean, worst) = run.window_error(0, 0.25);
        assert!((run.share(0) - 0.25).abs() / 0.25 < 0.002);
        assert!(mean < 0.005 && worst < 0.02, "{mean} {worst}");
        assert!(run.busy() > 0.99, "{}", run.busy());
    }
}

#[test]
fn in_order_of_arrival_the_same_callers_share_by_the_length_of_their_jobs() {
    let fifo = ShareOptions { order: Order::Arrival, ..options(2) };
    let run = run(Machine::new(fifo), &unequal(16));
    print("arrival", &run, 0.25);
    assert!(run.window_error(0, 0.25).0 > 1.0, "the control has to fail the check");
}

#[test]
fn four_shares_with_four_lengths_of_jobs_are_kept() {
    let lengths = [(0.1, 2), (0.2, 20), (0.3, 6), (0.4, 2)];
    let callers = lengths.map(|(share, ms)| Caller::busy(share, ms * MS, 8));
    let run = run(Machine::new(options(2)), &callers);
    for (i, caller) in callers.iter().enumerate() {
        let (mean, worst) = run.window_error(i, caller.share);
        assert!((run.share(i) - caller.share).abs() / caller.share < 0.01, "{i}: {}", run.share(i));
        // A share is off by a slice in a second, at most by one of each of the others.
        assert!(mean < 0.04 && worst < 0.11, "{i}: {mean} {worst}");
    }
}

#[test]
fn callers_that_wait_for_each_answer_get_their_shares_by_anticipation_and_by_a_cap_and_not_otherwise() {
    let think = Sends::Closed { outstanding: 1, think: us(60) };
    let callers = [Caller::busy(0.25, 12 * MS, 1).sends(think), Caller::busy(0.75, us(1200), 1).sends(think)];
    let with = run(Machine::new(options(2)), &callers);
    print("anticipation", &with, 0.25);
    assert!((with.share(0) - 0.25).abs() / 0.25 < 0.03, "{}", with.share(0));
    assert!(with.busy() > 0.9);

    let without = ShareOptions { anticipation: Duration::ZERO, ..options(2) };
    let control = run(Machine::new(without), &callers);
    print("none", &control, 0.25);
    assert!(control.share(0) > 0.8, "the control has to fail the check: {}", control.share(0));

    let capped = run(Machine::new(without), &callers.map(|caller| caller.capped(BURST)));
    print("capped", &capped, 0.25);
    assert!(capped.used(0) / capped.runs_s < 0.255);
}

#[test]
fn two_outstanding_are_enough_without_any_luck_in_timing() {
    let callers = unequal(2).map(|caller| caller.sends(Sends::Closed { outstanding: 2, think: us(60) }));
    let run = run(Machine::new(options(2)), &callers);
    print("two outstanding", &run, 0.25);
    assert!((run.share(0) - 0.25).abs() / 0.25 < 0.05, "{}", run.share(0));
}

#[test]
fn a_device_queue_deeper_than_a_backlog_does_not_spoil_the_shares() {
    let run = run(Machine::new(options(16)), &unequal(16));
    print("depth 16", &run, 0.25);
    assert!((run.share(0) - 0.25).abs() / 0.25 < 0.02, "{}", run.share(0));
}

#[test]
fn a_cap_holds_on_an_idle_device() {
    for (job, outstanding) in [(2 * MS, 16), (12 * MS, 4), (us(200), 1)] {
        let callers = [Caller::busy(0.25, job, outstanding).capped(BURST)];
        let run = run(Machine::new(options(2)), &callers);
        let got = run.used(0) / run.runs_s;
        println!("{job:?}: {got:.4}");
        assert!(got < 0.25 * (30.0 + 0.1) / 30.0 + 2.0 * job.as_secs_f64() * 1.2 / 30.0, "{got}");
        assert!(got > 0.245, "{got}");
    }
}

#[test]
fn what_one_lease_leaves_another_takes() {
    let some = Sends::Poisson { every: 10 * MS };
    let callers = [Caller::busy(0.5, MS, 1).sends(some), Caller::busy(0.5, MS, 8)];
    let run = run(Machine::new(options(2)), &callers);
    assert!((run.used(0) / run.runs_s - 0.1).abs() < 0.01, "all that the first asked for");
    assert!(run.busy() > 0.97, "{}", run.busy());
}

#[test]
fn a_lease_that_is_often_waited_for_cannot_keep_others_out() {
    // It comes back just before it is given up, each time, with next to nothing to do.
    let tease = Sends::Closed { outstanding: 1, think: us(900) };
    let callers = [Caller::busy(0.5, us(20), 1).sends(tease), Caller::busy(0.5, 2 * MS, 4)];
    let run = run(Machine::new(options(2)), &callers);
    println!("busy {:.3}, other {:.3}", run.busy(), run.used(1) / run.runs_s);
    assert!(run.used(1) / run.runs_s > 0.48, "{}", run.used(1) / run.runs_s);
}

#[test]
fn an_interactive_caller_waits_for_depth_and_one_slices() {
    let interactive = Caller::busy(0.5, us(200), 1).sends(Sends::Poisson { every: 20 * MS });
    let callers = [interactive, Caller::busy(0.5, 20 * MS, 8)];
    for (depth, slice) in [(1, 20 * MS), (2, 5 * MS), (2, 2 * MS), (2, MS), (4, 2 * MS)] {
        let run = run(Machine { slice, ..Machine::new(options(depth)) }, &callers);
        let (p99, bound) = (run.latency_ms(0, 0.99), (depth + 1) as f64 * slice.as_secs_f64() * 1.2e3 + 0.5);
        println!("depth {depth}, slice {slice:?}: p99 {p99:.2} ms, at most {bound:.2}");
        assert!(p99 < bound, "{p99} {bound}");
    }
    let fifo = ShareOptions { order: Order::Arrival, ..options(2) };
    let control = run(Machine::new(fifo), &callers);
    assert!(control.latency_ms(0, 0.99) > 100.0, "the control has to fail the check");
}

#[test]
fn who_was_idle_has_no_credit_and_who_was_greedy_keeps_its_debt() {
    let half = Fraction::parse(0.5).unwrap().unwrap();
    let mut shares = Shares::new(ShareOptions { depth_max: 1, ..options(1) });
    let mut now = Duration::ZERO;
    let serve = |shares: &mut Shares, id: u64, now: &mut Duration, took: Duration| {
        shares.arrived(id, *now);
        assert_eq!(shares.next(*now), Next::Start(id));
        shares.started(id, took, Part::Last, *now);
        *now += took;
        shares.settled(id, took, took);
        shares.answered(id, *now);
    };
    shares.join(1, half, SharePolicy::WorkConserving, now);
    shares.join(2, half, SharePolicy::WorkConserving, now);
    // The first works alone for a while; the second then comes, long after its own last job.
    serve(&mut shares, 2, &mut now, MS);
    for _ in 0..100 {
        serve(&mut shares, 1, &mut now, MS);
    }
    now += 50 * MS;
    let mut starts = Vec::new();
    (0..20).for_each(|i| shares.arrived(1 + i % 2, now));
    while let Next::Start(id) = shares.next(now) {
        starts.push(id);
        shares.started(id, MS, Part::Last, now);
        now += MS;
        shares.settled(id, MS, MS);
    }
    let mut runs = starts[..10].chunk_by(|a, b| a == b).map(<[u64]>::len);
    assert!(runs.all(|length| length <= 2), "neither may catch up for the time it was away: {starts:?}");
    // A job that cost far more than estimated is paid back.
    shares.arrived(1, now);
    shares.started(1, MS, Part::Last, now);
    shares.settled(1, MS, 10 * MS);
    (0..10).for_each(|_| shares.arrived(2, now));
    shares.arrived(1, now);
    let mut served = 0;
    while let Next::Start(2) = shares.next(now) {
        shares.started(2, MS, Part::Last, now);
        shares.settled(2, MS, MS);
        served += 1;
    }
    assert!((8..=10).contains(&served), "{served}");
}

#[test]
fn what_was_used_is_no_debt_when_nobody_has_wanted_the_device_for_a_while() {
    let [quarter, rest] = [0.25, 0.75].map(|share| Fraction::parse(share).unwrap().unwrap());
    let starts = |away: Duration| {
        let mut shares = Shares::new(options(1));
        shares.join(1, quarter, SharePolicy::WorkConserving, Duration::ZERO);
        shares.join(2, rest, SharePolicy::WorkConserving, Duration::ZERO);
        // Far longer than anybody could have thought.
        let took = 15_000 * MS;
        shares.arrived(1, Duration::ZERO);
        shares.started(1, Duration::ZERO, Part::Last, Duration::ZERO);
        shares.settled(1, Duration::ZERO, took);
        shares.answered(1, took);
        let now = took + away;
        (0..60).for_each(|n| shares.arrived(1 + n % 2, now));
        let mut starts = [0; 3];
        for _ in 0..16 {
            let Next::Start(id) = shares.next(now) else { panic!("a slice is to start") };
            starts[id as usize] += 1;
            shares.started(id, MS, Part::Last, now);
            shares.settled(id, MS, MS);
        }
        starts
    };
    assert_eq!(starts(150 * MS), [0, 4, 12]);
    assert_eq!(starts(50 * MS), [0, 0, 16], "callers that are merely late say nothing");
}

#[test]
fn slices_too_short_to_measure_take_turns() {
    let half = Fraction::parse(0.5).unwrap().unwrap();
    let mut shares = Shares::new(options(1));
    for id in [1, 2] {
        shares.join(id, half, SharePolicy::WorkConserving, Duration::ZERO);
        (0..50).for_each(|_| shares.arrived(id, Duration::ZERO));
    }
    let mut starts = [0; 3];
    for _ in 0..50 {
        let Next::Start(id) = shares.next(Duration::ZERO) else { panic!("a slice is to start") };
        starts[id as usize] += 1;
        shares.started(id, Duration::ZERO, Part::Last, Duration::ZERO);
        shares.settled(id, Duration::ZERO, Duration::ZERO);
    }
    assert_eq!(starts, [0, 25, 25]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_the_shares_and_lengths_nobody_starves_and_long_runs_come_out_right(
        parts in prop::collection::vec((1_u32..=10, 100_u64..8_000, 3_usize..10), 2..6),
        depth in 1_usize..=3,
        seed in 1_u64..,
    ) {
        let sum: u32 = parts.iter().map(|(share, ..)| share).sum();
        let callers: Vec<_> = parts
            .iter()
            .map(|(share, job, outstanding)| {
                let parts = (share * 10_000 / sum).max(1);
                Caller::busy(f64::from(parts) / 10_000.0, us(*job), *outstanding)
            })
            .collect();
        let given: f64 = callers.iter().map(|caller| caller.share).sum();
        let machine = Machine { seed, runs: Duration::from_secs(10), ..Machine::new(options(depth)) };
        let run = run(machine, &callers);
        let longest = parts.iter().map(|(_, job, _)| *job).max().unwrap() as f64 * 1.2e-6;
        for (i, caller) in callers.iter().enumerate() {
            let (got, target) = (run.share(i), caller.share / given);
            let error = (got - target).abs() / target;
            prop_assert!(error < 0.02 + 3.0 * longest / (target * 10.0), "{i}: {got} for {target}");
        }
    }

    #[test]
    fn a_cap_is_never_passed_by_more_than_its_burst_and_what_was_in_flight(
        share in 1_u32..=99,
        job in 100_u64..20_000,
        outstanding in 1_usize..8,
        burst in 1_u64..500,
        others in 0_usize..3,
        seed in 1_u64..,
    ) {
        let share = f64::from(share) / 100.0;
        let burst = Duration::from_millis(burst);
        let mut callers = vec![Caller::busy(share, us(job), outstanding).capped(burst)];
        callers.extend((0..others).map(|_| Caller::busy(0.1, us(700), 4)));
        let machine = Machine { seed, runs: Duration::from_secs(5), ..Machine::new(options(2)) };
        let run = run(machine, &callers);
        let most = share * (5.0 + burst.as_secs_f64()) + 2.0 * us(job).as_secs_f64() * 1.2;
        prop_assert!(run.used(0) <= most, "{} of {most}", run.used(0));
    }

    #[test]
    fn the_floor_rule_gives_a_late_comer_its_share_from_then_on_and_no_more(
        idle_ms in 5_u64..2_000,
        job in 200_u64..4_000,
    ) {
        let half = Fraction::parse(0.5).unwrap().unwrap();
        let mut shares = Shares::new(options(1));
        let mut now = Duration::ZERO;
        for id in [1, 2] {
            shares.join(id, half, SharePolicy::WorkConserving, now);
            shares.arrived(id, now);
        }
        let mut used = [Duration::ZERO; 3];
        let end = Duration::from_millis(idle_ms);
        let after = end + 400 * us(job);
        let mut returned = false;
        while now < after {
            let Next::Start(id) = shares.next(now) else { now += us(50); continue };
            shares.started(id, us(job), Part::Last, now);
            now += us(job);
            shares.settled(id, us(job), us(job));
            shares.answered(id, now);
            if returned { used[id as usize] += us(job) }
            if id == 1 || returned { shares.arrived(id, now) }
            if now >= end && !returned {
                returned = true;
                shares.arrived(2, now);
            }
        }
        let (first, second) = (used[1].as_secs_f64(), used[2].as_secs_f64());
        prop_assert!((first - second).abs() <= 3.0 * us(job).as_secs_f64(), "{first} {second}");
    }
}
