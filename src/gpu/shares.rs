//! Whose slice runs next on a device: stride on measured time, caps, anticipation. Pure: the clock is an argument.

mod client;
mod left;

use std::{collections::BTreeMap, time::Duration};

use crate::resources::Fraction;
use client::Client;
use left::Left;

/// Least that a slice is charged, so that one whose time is too short to be measured still costs a turn.
const CHARGE_MIN: Duration = Duration::from_micros(1);

/// How long nobody may want the device until debts are forgiven. Callers that are merely late keep theirs.
const FORGIVEN_AFTER: Duration = Duration::from_millis(100);

/// What a lease gets when nobody else wants the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SharePolicy {
    /// At least its share under contention, and what others leave.
    #[default]
    WorkConserving,
    /// Never more than its share: over any time `t` at most `share * (t + burst)` and the slices in flight.
    HardCap {
        /// How long the share may be saved up while it is not used.
        burst: Duration,
    },
}

/// In which order slices start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Order {
    /// By shares.
    #[default]
    Shares,
    /// In order of arrival, as a device does by itself: shares are bookkeeping only. What the benches compare with.
    Arrival,
}

/// How a device is shared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShareOptions {
    /// In which order slices start.
    pub order: Order,
    /// Most slices given to the device at once. Fewer while a lease has fewer jobs outstanding, so that its next job
    /// can still be chosen first. 2 hides the host's time between slices; more adds latency only. At most 16.
    pub depth_max: usize,
    /// How long the device may be held idle for a lease that is behind its share and has just got an answer:
    /// without it, callers that wait for each answer share as if nobody scheduled. 0 never holds.
    pub anticipation: Duration,
    /// Longest slice planned; a kernel that declares a split axis is cut to it.
    pub slice_max: Duration,
}

impl Default for ShareOptions {
    fn default() -> Self {
        Self {
            order: Order::Shares,
            depth_max: 2,
            anticipation: Duration::from_millis(1),
            slice_max: Duration::from_millis(2),
        }
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Start the next slice of this client.
    Start(u64),
    /// Nothing until then, unless a job arrives or a slice ends.
    Until(Duration),
    /// Nothing until a slice ends.
    Full,
    /// Nothing until a job arrives.
    Idle,
}

/// Whether more of a job is to come after a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    More,
    Last,
}

/// The device held idle for a client.
#[derive(Clone, Copy, Debug)]
struct Hold {
    client: u64,
    since: Duration,
}

/// The state of sharing one device. Instants are durations since one origin.
#[derive(Debug)]
pub(crate) struct Shares {
    options: ShareOptions,
    clients: BTreeMap<u64, Client>,
    /// Where in virtual time the device is: what was started last began here. Who comes back from idling starts
    /// no earlier.
    virtual_now: i128,
    arrivals: u64,
    starts: u64,
    in_flight: usize,
    in_flight_estimate: Duration,
    hold: Option<Hold>,
    /// Those who are gone and owe something.
    left: Left,
    /// When it was last asked whose turn it is.
    seen: Duration,
}

impl Shares {
    pub(crate) fn new(options: ShareOptions) -> Self {
        Self {
            options,
            clients: BTreeMap::new(),
            virtual_now: 0,
            arrivals: 0,
            starts: 0,
            in_flight: 0,
            in_flight_estimate: Duration::ZERO,
            hold: None,
            left: Left::default(),
            seen: Duration::ZERO,
        }
    }

    pub(crate) fn options(&self) -> ShareOptions {
        self.options
    }

    /// A client that may start slices from now on. It takes over what those owe who left, for as much share as it has:
    /// a debt is not got rid of by leaving and joining anew.
    pub(crate) fn join(&mut self, id: u64, share: Fraction, policy: SharePolicy, now: Duration) {
        let mut client = Client::new(share, policy, self.virtual_now, now);
        self.left.hand_on(&mut client, self.virtual_now, now);
        self.clients.insert(id, client);
    }

    /// A client that is gone; its slices in flight are still to be settled.
    pub(crate) fn leave(&mut self, id: u64) {
        if let Some(client) = self.clients.remove(&id) {
            self.left.add(id, client, self.seen);
        }
        self.hold = self.hold.filter(|hold| hold.client != id);
    }

    /// A job of this client waits.
    pub(crate) fn arrived(&mut self, id: u64, now: Duration) {
        if self.hold.is_some_and(|hold| hold.client == id) {
            self.close_hold(now);
        }
        let anticipation = self.options.anticipation;
        let mut present = self.clients.values();
        if present.all(|client| client.is_gone(FORGIVEN_AFTER, now))
            && self.left.are_gone(FORGIVEN_AFTER, now)
        {
            // Nobody wants the device any more: what was used until then is nobody's debt.
            let all = self.clients.values().chain(self.left.clients());
            let used = all.map(|client| client.virtual_ns).max();
            self.virtual_now = self.virtual_now.max(used.unwrap_or_default());
        }
        self.arrivals += 1;
        let (floor, arrival) = (self.virtual_now, self.arrivals);
        if let Some(client) = self.clients.get_mut(&id) {
            client.arrived(arrival, floor, anticipation, now);
        }
    }

    /// A job of this client was answered: all its slices have ended.
    pub(crate) fn answered(&mut self, id: u64, now: Duration) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.answered(now);
        }
    }

    /// The job that this client would have started next is not to be started any more.
    pub(crate) fn withdrawn(&mut self, id: u64) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.ready.pop_front();
        }
    }

    /// Whether a slice of this length may go to the device beside those in flight.
    pub(crate) fn has_room(&self, estimate: Duration) -> bool {
        self.in_flight == 0
            || self.options.order == Order::Arrival
            || self.in_flight_estimate.saturating_add(estimate) <= self.options.slice_max.saturating_mul(2)
    }

    /// Whose turn it is.
    pub(crate) fn next(&mut self, now: Duration) -> Next {
        self.seen = now;
        let next = self.choose(now);
        // A hold ends when something starts, or when it is no longer the reason for waiting.
        if !matches!(next, Next::Until(_)) {
            self.close_hold(now);
        }
        next
    }

    fn choose(&mut self, now: Duration) -> Next {
        if self.clients.values().all(|client| client.ready.is_empty()) {
            return Next::Idle;
        }
        if self.in_flight >= self.depth(now) {
            return Next::Full;
        }
        if self.options.order == Order::Arrival {
            let first =
                self.clients.iter().filter_map(|(id, client)| Some((client.ready.front()?, id))).min();
            return first.map_or(Next::Idle, |(_, id)| Next::Start(*id));
        }
        let mut refill: Option<Duration> = None;
        let mut best: Option<(i128, u64, u64)> = None;
        for (id, client) in &mut self.clients {
            if client.ready.is_empty() {
                continue;
            }
            match client.tokens_at(now) {
                Some(at) => refill = Some(refill.map_or(at, |earliest| earliest.min(at))),
                None => {
                    let key = (client.virtual_ns, client.last_start, *id);
                    best = Some(best.map_or(key, |least| least.min(key)));
                }
            }
        }
        let Some((virtual_ns, _, id)) = best else {
            self.close_hold(now);
            return refill.map_or(Next::Idle, Next::Until);
        };
        let Some((awaited, until)) = self.awaited(virtual_ns, now) else { return Next::Start(id) };
        if self.hold.is_none_or(|hold| hold.client != awaited) {
            self.close_hold(now);
            if self.in_flight == 0 {
                self.hold = Some(Hold { client: awaited, since: now });
            }
        }
        Next::Until(until)
    }

    /// The client furthest behind that is expected to come back at once, and how long to wait for it.
    fn awaited(&mut self, than: i128, now: Duration) -> Option<(u64, Duration)> {
        let anticipation = self.options.anticipation;
        self.clients
            .iter_mut()
            .filter(|(_, client)| client.ready.is_empty() && client.virtual_ns < than)
            .filter_map(|(id, client)| {
                let until = client.expected_until(anticipation).filter(|until| now < *until)?;
                client.tokens_at(now).is_none().then_some((client.virtual_ns, *id, until))
            })
            .min()
            .map(|(_, id, until)| (id, until))
    }

    /// How many slices the device may have now: no more than the least backlog of those who use it, or all jobs
    /// of one of them sit in the device's own queue and others look as if they were alone.
    fn depth(&self, now: Duration) -> usize {
        let most = self.options.depth_max.max(1);
        if self.options.order == Order::Arrival {
            return most;
        }
        let anticipation = self.options.anticipation;
        let active = self.clients.values().filter(|client| client.is_active(anticipation, now));
        let (count, least) = active.fold((0, most), |(n, least), client| (n + 1, least.min(client.backlog)));
        if count > 1 { least.max(1) } else { most }
    }

    /// A slice of this client went to the device.
    pub(crate) fn started(&mut self, id: u64, estimate: Duration, part: Part, now: Duration) {
        self.close_hold(now);
        self.in_flight += 1;
        self.in_flight_estimate += estimate;
        self.starts += 1;
        let Some(client) = self.clients.get_mut(&id) else { return };
        self.virtual_now = self.virtual_now.max(client.virtual_ns);
        client.last_start = self.starts;
        client.in_flight += 1;
        client.charge(signed(estimate));
        if part == Part::Last {
            client.ready.pop_front();
        }
    }

    /// A slice of this client ended; it was started with this estimate.
    pub(crate) fn settled(&mut self, id: u64, estimate: Duration, measured: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.in_flight_estimate = self.in_flight_estimate.saturating_sub(estimate);
        let client = self.clients.get_mut(&id).or_else(|| self.left.settling(id, self.seen));
        if let Some(client) = client {
            client.in_flight = client.in_flight.saturating_sub(1);
            client.charge(signed(measured.max(CHARGE_MIN)) - signed(estimate));
            client.last_slice = measured;
        }
    }

    /// Charges the time that the device stood idle for a client: a short wait after each of its slices is free,
    /// as otherwise the waiting would cost its share; the rest counts as used, or it could keep others out.
    fn close_hold(&mut self, now: Duration) {
        let Some(hold) = self.hold.take() else { return };
        if let Some(client) = self.clients.get_mut(&hold.client) {
            let free = client.last_slice / 4;
            client.delay(signed(now.saturating_sub(hold.since).saturating_sub(free)));
        }
    }
}

fn signed(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod shares_tests;
#[cfg(test)]
mod simulator_tests;
