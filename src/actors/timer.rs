//! The timer seam of batches: a kernel timer on Linux, whose precision is microseconds; tokio's elsewhere and in
//! tests with paused time, which rounds up to whole milliseconds.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

/// Which clock wakes a waiting batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimerKind {
    /// The most precise one that this system has.
    #[default]
    Precise,
    /// Tokio's, whole milliseconds; follows paused time.
    Tokio,
}

/// A timer that is set anew for each batch.
pub(crate) enum Timer {
    #[cfg(target_os = "linux")]
    Kernel(kernel::KernelTimer),
    Tokio(Option<Pin<Box<tokio::time::Sleep>>>),
}

impl Timer {
    /// A timer for this thread's runtime.
    pub(crate) fn new(kind: TimerKind) -> Self {
        #[cfg(target_os = "linux")]
        if kind == TimerKind::Precise
            && let Ok(timer) = kernel::KernelTimer::new()
        {
            return Self::Kernel(timer);
        }
        let _ = kind;
        Self::Tokio(None)
    }

    /// The clock it goes by.
    pub(crate) fn now(&self) -> Instant {
        match self {
            #[cfg(target_os = "linux")]
            Self::Kernel(_) => Instant::now(),
            Self::Tokio(_) => tokio::time::Instant::now().into_std(),
        }
    }

    /// Ready when `at` has come; otherwise wakes the task then.
    pub(crate) fn poll_until(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if at <= self.now() {
            return Poll::Ready(());
        }
        match self {
            #[cfg(target_os = "linux")]
            Self::Kernel(timer) => timer.poll_until(at, cx),
            Self::Tokio(sleep) => {
                let at = tokio::time::Instant::from_std(at);
                let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
                if sleep.deadline() != at {
                    sleep.as_mut().reset(at);
                }
                sleep.as_mut().poll(cx)
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    //! A timerfd in the reactor of this thread's runtime.

    use std::{
        io,
        os::fd::OwnedFd,
        task::{Context, Poll, ready},
        time::Instant,
    };

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::{Interest, unix::AsyncFd};

    pub(crate) struct KernelTimer {
        fd: AsyncFd<OwnedFd>,
        set_for: Option<Instant>,
    }

    impl KernelTimer {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            // Its successor asks for `unsafe` to promise what an `OwnedFd` that nobody else has keeps anyway.
            #[expect(deprecated, reason = "this crate has no unsafe code")]
            let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
            Ok(Self { fd, set_for: None })
        }

        pub(super) fn poll_until(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
            loop {
                let now = Instant::now();
                if at <= now {
                    return Poll::Ready(());
                }
                if self.set_for != Some(at) {
                    let left = at - now;
                    let value = Timespec {
                        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                        tv_nsec: left.subsec_nanos().into(),
                    };
                    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
                    let spec = Itimerspec { it_interval: zero, it_value: value };
                    if timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::empty(), &spec).is_err() {
                        return Poll::Ready(()); // a timer that can't be set must not hold a batch back
                    }
                    self.set_for = Some(at);
                }
                let Ok(mut guard) = ready!(self.fd.poll_read_ready(cx)) else { return Poll::Ready(()) };
                let mut count = [0_u8; 8];
                // Expired, or a stale readiness: either way the loop looks at the clock again.
                let _ = rustix::io::read(self.fd.get_ref(), &mut count);
                guard.clear_ready();
                self.set_for = None;
            }
        }
    }
}
