//! Shares of a device under load: errors, caps, latencies, costs, and what the same load does in order of arrival.
//!
//! `cargo bench --features gpu --bench gpu_share`; `SECONDS` (a run, 5), `ROUNDS` (of everything, interleaved, 3) and
//! `SLICE_US` (longest slice) set how long. It takes the first GPU, or a software device when there is none;
//! `LP_NUM_THREADS=1` leaves a core to the host there.

mod load;
#[path = "../measure/mod.rs"]
mod measure;
mod memory;
mod raw;

use std::time::{Duration, Instant};

use greenroom::gpu::{DeviceClock, DeviceOptions, GpuDevice, Order, ShareOptions, SharePolicy};
use load::{Client, Sends, Work, run};
use measure::{Table, env, median};

const BURST: Duration = Duration::from_millis(100);

const SECOND: Duration = Duration::from_secs(1);

/// How long things last, by the kind of device.
#[derive(Clone, Copy)]
pub struct Scale {
    short: Duration,
    long: Duration,
    slice: Duration,
    run: Duration,
    software: bool,
}

impl Scale {
    fn options(self, order: Order) -> DeviceOptions {
        let slice_max = if order == Order::Arrival { Duration::from_secs(60) } else { self.slice };
        let anticipation = Duration::from_millis(if self.software { 2 } else { 1 });
        let sharing = ShareOptions { order, slice_max, anticipation, ..Default::default() };
        DeviceOptions { sharing, ..Default::default() }
    }
}

/// All numbers of a kind, one a round.
#[derive(Default)]
struct Rounds(Vec<(&'static str, Vec<f64>)>);

impl Rounds {
    fn add(&mut self, name: &'static str, value: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name, vec![value])),
        }
    }

    fn median(&self, name: &str) -> f64 {
        self.0.iter().find(|(known, _)| *known == name).map_or(f64::NAN, |(_, all)| median(all.clone()))
    }

    fn worst(&self, name: &str) -> f64 {
        let all = self.0.iter().find(|(known, _)| *known == name).map(|(_, all)| all.clone());
        all.unwrap_or_default().into_iter().fold(f64::NAN, f64::max)
    }
}

fn unequal(scale: Scale, sends: Sends) -> [Client; 2] {
    [Client::new(0.25, scale.long).sends(sends), Client::new(0.75, scale.short).sends(sends)]
}

/// Two leases whose jobs differ tenfold: by shares, and in order of arrival.
fn shares(scale: Scale, rounds: &mut Rounds) {
    let got = run(scale, scale.options(Order::Shares), &unequal(scale, Sends::Outstanding(4)));
    rounds.add("share error", (got.share(0) - 0.25).abs() / 0.25);
    let (mean, worst) = got.window_error(0, 0.25);
    rounds.add("second error, mean", mean);
    rounds.add("second error, worst", worst);
    rounds.add("busy", got.busy());
    let fifo = run(scale, scale.options(Order::Arrival), &unequal(scale, Sends::Outstanding(4)));
    rounds.add("error in order of arrival", (fifo.share(0) - 0.25).abs() / 0.25);
}

/// Callers that wait for each answer: with anticipation and without.
fn synchronous(scale: Scale, rounds: &mut Rounds) {
    let got = run(scale, scale.options(Order::Shares), &unequal(scale, Sends::Outstanding(1)));
    rounds.add("synchronous error", (got.share(0) - 0.25).abs() / 0.25);
    rounds.add("synchronous busy", got.busy());
    let mut options = scale.options(Order::Shares);
    options.sharing.anticipation = Duration::ZERO;
    let none = run(scale, options, &unequal(scale, Sends::Outstanding(1)));
    rounds.add("synchronous error, no anticipation", (none.share(0) - 0.25).abs() / 0.25);
}

fn cap(scale: Scale, rounds: &mut Rounds) {
    let client = Client::new(0.25, scale.short).policy(SharePolicy::HardCap { burst: BURST });
    let got = run(scale, scale.options(Order::Shares), &[client]);
    rounds.add("cap alone, over", (got.busy() / 0.25 - 1.0).max(0.0));
    rounds.add("cap alone, under", (1.0 - got.busy() / 0.25).max(0.0));
}

/// Jobs a second of two busy leases, over those of a queue that nobody schedules; and with the device's own clock,
/// where that is not the one that is taken.
fn throughput(scale: Scale, rounds: &mut Rounds) {
    let ours = |clock, two: &[Client]| {
        let options = DeviceOptions { clock, ..scale.options(Order::Shares) };
        run(Scale { run: SECOND, ..scale }, options, two).jobs_per_second()
    };
    let lengths = [
        ("throughput, 1 ms", "throughput, 1 ms, device's clock", 1),
        ("throughput, 5 ms", "throughput, 5 ms, device's clock", 5),
    ];
    for (name, stamped, ms) in lengths {
        let job = Duration::from_millis(ms);
        let work = Work::measured(scale, job);
        let two = [Client::new(0.5, job), Client::new(0.5, job)].map(|client| client.work(work));
        let clocks = [(name, DeviceClock::Auto), (stamped, DeviceClock::Device)];
        for (name, clock) in &clocks[..if scale.software { 2 } else { 1 }] {
            // In turn and briefly, each against those before and behind it, since the machine's own load moves.
            let mut before = raw::jobs_per_second(work, SECOND);
            let ratios = (0..5).map(|_| {
                let got = ours(*clock, &two);
                let behind = raw::jobs_per_second(work, SECOND);
                2.0 * got / (std::mem::replace(&mut before, behind) + behind)
            });
            rounds.add(name, median(ratios.collect::<Vec<f64>>()));
        }
    }
}

/// A caller with little to do beside one with dispatches of a quarter of a second.
fn interactive(scale: Scale, rounds: &mut Rounds) {
    let clients = [
        Client::new(0.2, scale.short / 2).sends(Sends::Poisson(scale.short * 15)),
        Client::new(0.8, Duration::from_millis(250)).sends(Sends::Outstanding(2)),
    ];
    let got = run(scale, scale.options(Order::Shares), &clients);
    rounds.add("interactive p50, ms", got.latency(0, 0.5) * 1e3);
    rounds.add("interactive p99, ms", got.latency(0, 0.99) * 1e3);
    let whole = clients.map(Client::whole);
    let control = run(scale, scale.options(Order::Shares), &whole);
    rounds.add("interactive p99 unsplit, ms", control.latency(0, 0.99) * 1e3);
}

fn main() {
    let probe = GpuDevice::open(DeviceOptions::default()).wait();
    let device = match probe {
        Ok(device) => device,
        Err(error) => return println!("SKIPPED: {error}"),
    };
    let facts = device.facts().clone();
    device.close().wait().expect("it is open");
    let software = facts.software;
    let short = Duration::from_micros(if software { 1200 } else { 200 });
    let slice = Duration::from_micros(env("SLICE_US", if software { 2500 } else { 2000 }) as u64);
    let run = Duration::from_secs(env("SECONDS", 5) as u64);
    let scale = Scale { short, long: short * 10, slice, run, software };
    println!("{} ({}), slices of {slice:?}, runs of {run:?}", facts.name, facts.driver);
    println!("load average {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    let (mut rounds, start) = (Rounds::default(), Instant::now());
    for _ in 0..env("ROUNDS", 3) {
        shares(scale, &mut rounds);
        synchronous(scale, &mut rounds);
        cap(scale, &mut rounds);
        throughput(scale, &mut rounds);
        interactive(scale, &mut rounds);
        rounds.add("recovery, ms", memory::recovery(scale).as_secs_f64() * 1e3);
    }
    let violations = memory::violations(scale, env("OPERATIONS", 100_000));
    let mut table = Table::new(["", "median", "worst", "rounds"]);
    for (name, all) in &rounds.0 {
        let worst = if name.contains("throughput") || name.contains("busy") {
            all.iter().copied().fold(f64::NAN, f64::min)
        } else {
            rounds.worst(name)
        };
        let each: Vec<String> = all.iter().map(|value| format!("{value:.3}")).collect();
        table.row([
            (*name).to_owned(),
            format!("{:.4}", rounds.median(name)),
            format!("{worst:.4}"),
            each.join(" "),
        ]);
    }
    table.row(["quota violations".into(), violations.to_string(), String::new(), String::new()]);
    table.print();
    println!(
        "took {:.0?}, load average {}",
        start.elapsed(),
        std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim()
    );
    println!(
        "{}",
        serde_json::json!({"gpu_share": {
            "device": facts.name, "software": software, "slice_ms": slice.as_secs_f64() * 1e3,
            "share_error": rounds.median("share error"),
            "window_error_mean": rounds.median("second error, mean"),
            "window_error_max": rounds.worst("second error, worst"),
            "fifo_error": rounds.median("error in order of arrival"),
            "sync_error": rounds.median("synchronous error"),
            "cap_overshoot": rounds.median("cap alone, over"),
            "cap_undershoot": rounds.median("cap alone, under"),
            "throughput_ratio": rounds.median("throughput, 1 ms"),
            "throughput_ratio_5ms": rounds.median("throughput, 5 ms"),
            "interactive_p99_ms": rounds.median("interactive p99, ms"),
            "interactive_p99_over_slice": rounds.median("interactive p99, ms") / (slice.as_secs_f64() * 1e3),
            "quota_violations": violations,
            "recovery_ms": rounds.median("recovery, ms"),
        }})
    );
}
