//! How far the SIEM has the events, and which of them it gets again after a break.
//!
//! What was sent within the last half minute before a break is sent again, up to a bound. A start is a break as well: Poseidon
//! and the SIEM may have gone down together. No event goes again for ever: a SIEM that has read everything may end each of its
//! connections sooner than that, and one that never reads far would get the same ones all the time.

use crate::store::events::EventState;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// What was sent so long before a break is sent again…
const OVERLAP: Duration = Duration::from_secs(30);
/// …but no more than so many events…
const OVERLAP_EVENTS: u64 = 5120;
/// …and each so many times…
const AGAIN: u32 = 3;
/// …or so many, where the connection was closed in order: then it is only what stands before the SIEM that may have lost it.
const AGAIN_IN_ORDER: u32 = 1;

/// What is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Everything up to this row was delivered.
    pub through: u64,
    /// Events that were delivered for the first time since the last cursor.
    pub more: u64,
    /// Behind this row the next start sends again.
    pub resend_after: u64,
}

/// Events that were delivered together.
#[derive(Debug)]
struct Group {
    /// They are behind this row…
    after: u64,
    /// …up to this one.
    through: u64,
    /// How many.
    events: u64,
    /// When they were delivered, the last time.
    when: Instant,
    /// How many times they were delivered again.
    again: u32,
}

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct Position {
    /// All up to here was delivered; behind `confirmed` where something is sent again.
    at: u64,
    /// All up to here was delivered once. This is the stored cursor.
    confirmed: u64,
    /// What is stored with it.
    resend_after: u64,
    /// What a break may send again.
    recent: VecDeque<Group>,
}

impl Position {
    /// As it is at a start: what may have been lost goes first.
    pub fn of(state: &EventState, now: Instant) -> Self {
        let confirmed = state.sent_through.min(state.newest);
        let after = state.resend_after.min(confirmed);
        let mut recent = VecDeque::new();
        if after < confirmed {
            recent.push_back(Group {
                after,
                through: confirmed,
                events: confirmed - after,
                when: now,
                again: 0,
            });
        }
        Self {
            at: after,
            confirmed,
            resend_after: after,
            recent,
        }
    }

    /// What is to be sent next is behind this row.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Everything up to `row` is delivered, of which `rows` were sent: the others are not severe enough, or gone.
    pub fn delivered(
        &mut self,
        row: u64,
        rows: impl Iterator<Item = u64>,
        now: Instant,
    ) -> Option<Cursor> {
        let from = self.at;
        self.at = row;
        for group in &mut self.recent {
            if group.through > from && group.after < row {
                group.when = now;
                // A group of which one message has the beginning and the next one the rest went once.
                group.again += u32::from(group.after >= from);
            }
        }
        // What is still to be sent again stays, however long it waits.
        self.recent
            .retain(|group| group.through > row || now.duration_since(group.when) <= OVERLAP);
        if row <= self.confirmed {
            return None;
        }
        // What was sent again is not counted again.
        let more = rows.filter(|row| *row > self.confirmed).count() as u64;
        if more > 0 {
            self.recent.push_back(Group {
                after: from.max(self.confirmed),
                through: row,
                events: more,
                when: now,
                again: 0,
            });
            let mut events: u64 = self.recent.iter().map(|group| group.events).sum();
            while events > OVERLAP_EVENTS
                && let Some(oldest) = self.recent.pop_front()
            {
                events -= oldest.events;
            }
        }
        self.confirmed = row;
        self.resend_after = self.recent.front().map_or(row, |group| group.after);
        Some(Cursor {
            through: row,
            more,
            resend_after: self.resend_after,
        })
    }

    /// Goes back to what may have been lost with a connection.
    pub fn broke(&mut self, in_order: bool, now: Instant) {
        let most = if in_order { AGAIN_IN_ORDER } else { AGAIN };
        let lost = self
            .recent
            .iter()
            .find(|group| group.again < most && now.duration_since(group.when) <= OVERLAP);
        if let Some(group) = lost {
            self.at = self.at.min(group.after);
        }
    }

    /// When what was delivered is surely read, where a start would still send some of it again.
    pub fn settles(&self) -> Option<Instant> {
        let last = self.recent.iter().map(|group| group.when).max();
        let settles = last.map_or_else(Instant::now, |last| last + OVERLAP);
        (self.resend_after < self.at).then_some(settles)
    }

    /// It is read.
    pub fn settled(&mut self) -> Cursor {
        self.recent.clear();
        self.resend_after = self.at;
        Cursor {
            through: self.confirmed,
            more: 0,
            resend_after: self.resend_after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A position, and a clock.
    struct Rig {
        position: Position,
        now: Instant,
    }

    impl Rig {
        fn new(sent_through: u64, resend_after: u64) -> Self {
            let state = EventState {
                newest: 1_000_000,
                sent_through,
                resend_after,
                ..EventState::default()
            };
            let now = Instant::now();
            let position = Position::of(&state, now);
            Self { position, now }
        }

        fn wait(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }

        /// All up to `row`; what is stored then.
        fn deliver(&mut self, row: u64) -> Option<(u64, u64, u64)> {
            let rows = self.position.at() + 1..=row;
            let cursor = self.position.delivered(row, rows, self.now);
            cursor.map(|c| (c.through, c.more, c.resend_after))
        }

        /// Where it goes on after a break.
        fn broke(&mut self, in_order: bool) -> u64 {
            self.position.broke(in_order, self.now);
            self.position.at()
        }
    }

    #[test]
    fn a_break_sends_the_last_half_minute_again() {
        let mut rig = Rig::new(0, 0);
        assert_eq!(rig.position.settles(), None);
        assert_eq!(rig.deliver(10), Some((10, 10, 0)));
        rig.wait(20);
        assert_eq!(rig.deliver(20), Some((20, 10, 0)));
        rig.wait(11);
        assert_eq!(rig.deliver(30), Some((30, 10, 10)));
        assert_eq!(rig.broke(false), 10);
        // The SIEM is away for an hour, and one more connection breaks in the middle.
        rig.wait(3600);
        assert_eq!(rig.deliver(15), None);
        assert_eq!(rig.broke(false), 10);
        assert_eq!(rig.deliver(25), None);
        assert_eq!(rig.deliver(35), Some((35, 5, 10)));
    }

    #[test]
    fn nothing_goes_again_for_ever() {
        for (in_order, times) in [(true, AGAIN_IN_ORDER), (false, AGAIN)] {
            let mut rig = Rig::new(0, 0);
            rig.deliver(10);
            for _ in 0..times {
                rig.wait(3);
                assert_eq!(rig.broke(in_order), 0);
                rig.wait(60);
                assert_eq!(rig.deliver(10), None);
            }
            rig.wait(3);
            assert_eq!(rig.broke(in_order), 10);
            // What came meanwhile has its own times.
            assert_eq!(rig.deliver(12), Some((12, 2, 0)));
            assert_eq!(rig.broke(in_order), 10);
        }
    }

    #[test]
    fn a_siem_that_never_takes_much_gets_on() {
        for in_order in [true, false] {
            let mut rig = Rig::new(0, 0);
            let mut connections = 0;
            while rig.position.confirmed < 20_000 {
                for _ in 0..4 {
                    let row = rig.position.at() + 256;
                    rig.deliver(row);
                }
                rig.broke(in_order);
                rig.wait(1);
                connections += 1;
                assert!(connections < 500, "at {}", rig.position.confirmed);
            }
        }
    }

    #[test]
    fn what_was_not_sent_again_yet_is_not_left_out() {
        let mut rig = Rig::new(0, 0);
        for row in [10, 20, 30] {
            rig.deliver(row);
        }
        assert_eq!(rig.broke(true), 0);
        // Each connection takes only a little, and they end in any way.
        let mut reached = 0;
        for (row, in_order) in [(5, true), (8, false), (10, true), (20, true), (25, true)] {
            rig.deliver(row);
            reached = reached.max(row);
            rig.wait(40);
            assert!(rig.broke(in_order) <= reached);
        }
        assert_eq!(rig.position.at(), 25);
        assert_eq!(rig.deliver(30), None);
        assert_eq!(rig.deliver(31), Some((31, 1, 20)));
    }

    #[test]
    fn a_start_is_a_break() {
        let mut rig = Rig::new(20, 10);
        assert_eq!(rig.position.at(), 10);
        // A connection that breaks before everything is there changes nothing.
        assert_eq!(rig.broke(true), 10);
        assert_eq!(rig.deliver(15), None);
        assert_eq!(rig.broke(false), 10);
        assert_eq!(rig.deliver(20), None);
        assert_eq!(rig.position.settles(), Some(rig.now + OVERLAP));
        let cursor = rig.position.settled();
        assert_eq!((cursor.through, cursor.resend_after), (20, 20));
        assert_eq!(rig.position.settles(), None);
        assert_eq!(rig.broke(false), 20);
        // What is stored may be of another database.
        let state = EventState {
            newest: 5,
            sent_through: 9,
            resend_after: 7,
            ..EventState::default()
        };
        assert_eq!(Position::of(&state, rig.now).at(), 5);
    }

    #[test]
    fn no_more_goes_again_than_the_bound() {
        let mut rig = Rig::new(0, 0);
        for n in 1..=30 {
            rig.deliver(n * 256);
        }
        assert_eq!(rig.broke(false), 30 * 256 - OVERLAP_EVENTS);
        // Single ones count as what they are.
        let mut rig = Rig::new(0, 0);
        for row in 1..=100 {
            rig.deliver(row);
        }
        assert_eq!(rig.broke(false), 0);
        // What was left out is no event: it is not sent again, and not counted.
        let mut rig = Rig::new(0, 0);
        let nothing = std::iter::empty();
        let cursor = rig.position.delivered(2000, nothing, rig.now);
        let cursor = cursor.map(|c| (c.more, c.resend_after));
        assert_eq!((cursor, rig.broke(false)), (Some((0, 2000)), 2000));
    }
}
