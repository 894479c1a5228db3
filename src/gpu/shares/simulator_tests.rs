//! An ideal serial device with a host that costs time, simulated in virtual time to drive the share policy.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::{Next, Part, ShareOptions, SharePolicy, Shares};
use crate::resources::Fraction;

/// How a simulated caller sends its jobs.
#[derive(Clone, Copy, Debug)]
pub enum Sends {
    /// Keeps this many outstanding; sends the next this long after an answer.
    Closed { outstanding: usize, think: Duration },
    /// At random instants, this far apart on average, whatever is outstanding.
    Poisson { every: Duration },
}

#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub share: f64,
    pub policy: SharePolicy,
    pub job: Duration,
    pub sends: Sends,
}

impl Caller {
    /// Keeps `outstanding` jobs of this length outstanding and sends again at once.
    pub fn busy(share: f64, job: Duration, outstanding: usize) -> Self {
        let sends = Sends::Closed { outstanding, think: Duration::ZERO };
        Self { share, policy: SharePolicy::WorkConserving, job, sends }
    }

    pub fn capped(self, burst: Duration) -> Self {
        Self { policy: SharePolicy::HardCap { burst }, ..self }
    }

    pub fn sends(self, sends: Sends) -> Self {
        Self { sends, ..self }
    }
}

/// The machine around the policy.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub options: ShareOptions,
    /// Host time of each submission and of each completion.
    pub host: Duration,
    /// Jobs last between this much less and this much more.
    pub jitter: f64,
    /// Longest piece of a job; jobs are cut into equal ones.
    pub slice: Duration,
    pub runs: Duration,
    pub seed: u64,
}

impl Machine {
    pub fn new(options: ShareOptions) -> Self {
        Self {
            options,
            host: Duration::from_micros(20),
            jitter: 0.2,
            slice: Duration::MAX,
            runs: Duration::from_secs(30),
            seed: 7,
        }
    }
}

/// What a run saw.
#[derive(Debug, Default)]
pub struct Run {
    /// Device time of each caller in each second.
    pub windows: Vec<Vec<f64>>,
    /// From sending to answer, in seconds, by caller.
    pub latencies: Vec<Vec<f64>>,
    pub runs_s: f64,
}

impl Run {
    /// Part of all device time used that this caller got.
    pub fn share(&self, caller: usize) -> f64 {
        self.used(caller) / (0..self.latencies.len()).map(|c| self.used(c)).sum::<f64>()
    }

    /// Part of the run that the device worked.
    pub fn busy(&self) -> f64 {
        (0..self.latencies.len()).map(|c| self.used(c)).sum::<f64>() / self.runs_s
    }

    pub fn used(&self, caller: usize) -> f64 {
        self.windows.iter().map(|window| window[caller]).sum()
    }

    /// Relative error of a caller's share in each second: mean and worst. The first is left out: it starts empty.
    pub fn window_error(&self, caller: usize, share: f64) -> (f64, f64) {
        let errors: Vec<f64> = self.windows[1..self.windows.len() - 1]
            .iter()
            .map(|window| (window[caller] / window.iter().sum::<f64>() - share).abs() / share)
            .collect();
        (errors.iter().sum::<f64>() / errors.len() as f64, errors.iter().copied().fold(0.0, f64::max))
    }

    /// This quantile of a caller's latencies, in milliseconds.
    pub fn latency_ms(&self, caller: usize, quantile: f64) -> f64 {
        let mut sorted = self.latencies[caller].clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * quantile) as usize] * 1e3
    }
}

/// Small, fast and the same everywhere.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Sends(usize),
    Ends { caller: usize, estimate: Duration, took: Duration, sent: Option<Duration> },
    Look,
}

struct Job {
    sent: Duration,
    pieces: u32,
    piece: Duration,
}

pub fn run(machine: Machine, callers: &[Caller]) -> Run {
    let mut shares = Shares::new(machine.options);
    let mut draws = Draws(machine.seed.max(1));
    let mut events: BinaryHeap<Reverse<(Duration, u64, Event)>> = BinaryHeap::new();
    let mut queues: Vec<std::collections::VecDeque<Job>> =
        callers.iter().map(|_| Default::default()).collect();
    let mut result = Run {
        windows: vec![vec![0.0; callers.len()]; machine.runs.as_secs() as usize + 1],
        latencies: vec![Vec::new(); callers.len()],
        runs_s: machine.runs.as_secs_f64(),
    };
    let mut order = 0;
    let mut push = |events: &mut BinaryHeap<_>, at: Duration, event: Event| {
        order += 1;
        events.push(Reverse((at, order, event)));
    };
    for (i, caller) in callers.iter().enumerate() {
        let share = Fraction::parse(caller.share).unwrap().unwrap();
        shares.join(i as u64, share, caller.policy, Duration::ZERO);
        let first = match caller.sends {
            Sends::Closed { outstanding, .. } => outstanding,
            Sends::Poisson { .. } => 1,
        };
        (0..first).for_each(|_| push(&mut events, Duration::ZERO, Event::Sends(i)));
    }
    // The host does one thing at a time, and so does the device.
    let (mut host_free, mut device_free) = (Duration::ZERO, Duration::ZERO);
    while let Some(Reverse((at, _, event))) = events.pop() {
        if at >= machine.runs {
            break;
        }
        let mut now = at.max(host_free);
        match event {
            Event::Sends(i) => {
                let jitter = 1.0 + machine.jitter * (2.0 * draws.next() - 1.0);
                let length = callers[i].job.mul_f64(jitter);
                let pieces = length.as_nanos().div_ceil(machine.slice.as_nanos()).max(1) as u32;
                queues[i].push_back(Job { sent: at, pieces, piece: length / pieces });
                shares.arrived(i as u64, now);
                if let Sends::Poisson { every } = callers[i].sends {
                    let gap = every.mul_f64(-(1.0 - draws.next()).ln());
                    push(&mut events, at + gap, Event::Sends(i));
                }
            }
            Event::Ends { caller, estimate, took, sent } => {
                now += machine.host;
                shares.settled(caller as u64, estimate, took);
                if let Some(sent) = sent {
                    shares.answered(caller as u64, now);
                    result.latencies[caller].push((now - sent).as_secs_f64());
                    if let Sends::Closed { think, .. } = callers[caller].sends {
                        push(&mut events, now + think, Event::Sends(caller));
                    }
                }
            }
            Event::Look => {}
        }
        host_free = now;
        // What happened meanwhile is seen before the next decision.
        if events.peek().is_some_and(|Reverse((next, _, _))| *next <= host_free) {
            continue;
        }
        loop {
            let i = match shares.next(host_free) {
                Next::Start(id) => id as usize,
                Next::Until(then) => {
                    push(&mut events, then, Event::Look);
                    break;
                }
                Next::Full | Next::Idle => break,
            };
            // What a calibrated estimate knows: the length without its jitter.
            let job = queues[i].front_mut().unwrap();
            let estimate = callers[i].job.min(machine.slice);
            if !shares.has_room(estimate) {
                break;
            }
            job.pieces -= 1;
            let (took, last) = (job.piece, job.pieces == 0);
            let part = if last { Part::Last } else { Part::More };
            host_free += machine.host;
            shares.started(i as u64, estimate, part, host_free);
            let begins = device_free.max(host_free);
            device_free = begins + took;
            spread(&mut result.windows, i, begins, device_free);
            let sent = last.then(|| queues[i].pop_front().unwrap().sent);
            push(&mut events, device_free, Event::Ends { caller: i, estimate, took, sent });
        }
    }
    result
}

/// Adds device time to the seconds it was used in.
fn spread(windows: &mut [Vec<f64>], caller: usize, begins: Duration, ends: Duration) {
    let mut at = begins;
    while at < ends {
        let second = at.as_secs() as usize;
        let until = ends.min(Duration::from_secs(at.as_secs() + 1));
        if let Some(window) = windows.get_mut(second) {
            window[caller] += (until - at).as_secs_f64();
        }
        at = until;
    }
}
