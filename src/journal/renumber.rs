//! Other numbers, where a server shows that those in use were used before.

use super::sequence::BELIEVED;
use super::state::State;

/// Ids behind `from`, up to `through`, grow by `delta`.
#[derive(Debug, Clone, Copy)]
pub struct Rebase {
    pub from: u64,
    pub through: u64,
    pub delta: u64,
}

impl Rebase {
    /// Whether it concerns the id.
    pub fn hits(self, id: u64) -> bool {
        id > self.from && id <= self.through
    }

    /// Whether it may concern an id of these.
    pub fn concerns(self, first: u64, last: u64) -> bool {
        last > self.from && first <= self.through
    }

    /// What becomes of it, which no rebase hits again.
    pub fn apply(self, id: u64) -> u64 {
        if self.hits(id) { id + self.delta } else { id }
    }
}

impl State {
    /// See [`super::Journal::connected`].
    pub fn connected(&mut self, acked: u64) -> u64 {
        self.connected = true;
        if acked > BELIEVED / 2 {
            log::warn!(
                "the server says that it has stored record {acked}, which cannot be: ignored"
            );
            return self.acked;
        }
        // Before the first time nothing of this life has left, so what the server has is from earlier ones.
        let known = if self.met {
            self.sequence.last()
        } else {
            self.sequence.base()
        };
        let mut settled = !self.met;
        if acked > known {
            settled &= self.rebase(acked);
        } else if !self.met {
            self.stored = Some(acked);
        }
        self.met = true;
        if settled
            && let Err(fault) = self.sequence.settle()
            && self.memory.is_none()
        {
            self.fail(&fault);
        }
        self.acked = acked;
        acked
    }

    /// The server has records that are not known here, so numbers were used twice or what had them is lost. Whatever
    /// is not known to be stored gets numbers behind all that either side knows: better twice than never. Says
    /// whether the disk has it so.
    fn rebase(&mut self, acked: u64) -> bool {
        let (from, through) = (self.acked, self.sequence.last());
        let delta = acked.max(through) - from;
        let rebase = Rebase {
            from,
            through,
            delta,
        };
        log::warn!(
            "Poseidon has stored records up to {acked}, which this journal knows nothing of: it was lost or restored, \
             or another device has the same instance id. What is not known to be stored gets numbers behind those"
        );
        let done = match &self.disk {
            Some(_) => self.with_disk(|disk| disk.renumber(rebase)).is_some(),
            None => true,
        };
        if !done {
            self.rebases.push(rebase);
        }
        if let Some(memory) = &mut self.memory {
            memory.renumber(rebase);
        }
        for open in self.open.values_mut() {
            open.id = rebase.apply(open.id);
        }
        self.sequence.raise(through + delta);
        done
    }
}
