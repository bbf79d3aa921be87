//! Threads that cannot die in silence.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Stack of a thread that only moves messages. Pages that are not touched cost address space only.
pub const SMALL_STACK: usize = 128 * 1024;
/// Stack of a thread that shakes hands over TLS.
pub const LARGE_STACK: usize = 512 * 1024;

/// How long a thread that panicked waits for the orderly stop, which takes 5 s at most, in builds in which its own end
/// is everyone's.
#[cfg(panic = "abort")]
const STOP_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

type Alarm = dyn Fn(&str) + Send + Sync;

/// Starts threads; a panic in any of them sounds the alarm, which stops the whole agent in order.
#[derive(Clone)]
pub struct Crew {
    alarm: Arc<Alarm>,
}

impl Crew {
    /// `alarm` gets the name of a thread that panicked. It must not block.
    pub fn new(alarm: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self {
            alarm: Arc::new(alarm),
        }
    }

    /// Starts a thread. The name shows in `top -H` and in the log; the kernel keeps 15 bytes of it.
    pub fn spawn(
        &self,
        name: &str,
        stack: usize,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        self.spawn_boxed(name, stack, Box::new(body))
    }

    /// Once for all bodies: what `std` does to start a thread is a kilobyte.
    fn spawn_boxed(
        &self,
        name: &str,
        stack: usize,
        body: Box<dyn FnOnce() + Send>,
    ) -> io::Result<JoinHandle<()>> {
        let alarm = Arc::clone(&self.alarm);
        let own_name = name.to_owned();
        std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(stack)
            .spawn(move || {
                // Every shared lock of this crate recovers from poisoning, so nothing broken is passed on.
                if catch_unwind(AssertUnwindSafe(body)).is_err() {
                    alarm(&own_name);
                }
            })
    }

    /// Sends panics to the log, and, in builds in which a panic aborts, gives the agent the time for its orderly
    /// stop: the panicking thread sounds the alarm and sleeps until the process has ended. It may hold a lock that the
    /// stop waits for, so it does not sleep for ever.
    pub fn install_panic_hook(&self) {
        #[cfg(panic = "abort")]
        let alarm = Arc::clone(&self.alarm);
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("unnamed");
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            log::error!(
                "internal error in the thread {name} at {place}: {}; please report this",
                text(info.payload())
            );
            #[cfg(panic = "abort")]
            if name != "main" {
                alarm(name);
                std::thread::sleep(STOP_PATIENCE);
                log::error!("the orderly stop does not come to its end; aborting");
            }
        }));
    }
}

fn text(payload: &dyn Any) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_panic_sounds_the_alarm_with_the_name_of_the_thread() {
        let (sender, receiver) = mpsc::channel();
        let crew = Crew::new(move |name| sender.send(name.to_owned()).unwrap());
        let quiet = crew.spawn("quiet", SMALL_STACK, || {}).unwrap();
        quiet.join().unwrap();
        let loud = crew
            .spawn("loud", SMALL_STACK, || panic!("wanted by the test"))
            .unwrap();
        loud.join().unwrap();
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), ["loud"]);
    }
}
