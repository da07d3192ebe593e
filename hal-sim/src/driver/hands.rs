//! The steps of one boot, done on an open store.
//!
//! Invariant: the model is told of an acknowledgement only after the call that gave it has returned, so the states kept
//! for cuts during the call owe what was owed before.

use super::machine::{StoreOf, Tally, Tap, World};
use super::medium::{Fate, Medium};
use super::observe::{floors_of, row_of, scan_all, state_key, stream_name};
use super::story::Story;
use super::workload::{Shape, Step, Stop};
use crate::model::{Item, Violation, fill_body};
use crate::rig::ScanRig;
use lastgasp_core::error::StoreError;
use lastgasp_core::format::row::Lost;
use lastgasp_core::gaps::GapCause;
use lastgasp_core::hal::{ReadStorage, Storage};
use lastgasp_core::store::{Stepped, Ticket};

/// A store that is open, and everything beside it.
pub(super) struct Hands<'h, 't, 'm, M: Medium> {
    pub(super) store: Option<StoreOf<'m, M>>,
    pub(super) world: &'h mut World,
    pub(super) tap: &'h mut Option<Tap<'t, M>>,
    pub(super) tally: &'h mut Tally,
    pub(super) story: &'h Story,
    pub(super) ticket: Option<(Ticket, SyncResult<M>)>,
    pub(super) bound: u32,
    pub(super) wrote: bool,
    pub(super) over: bool,
    /// Operations that the story has told.
    pub(super) told: usize,
    pub(super) shape: Shape,
    pub(super) scan: &'h mut ScanRig,
}

type SyncResult<M> = Option<Result<(), ErrorOf<M>>>;
type ErrorOf<M> = <<M as Medium>::Storage as ReadStorage>::Error;

impl<'m, M: Medium> Hands<'_, '_, 'm, M> {
    fn store(&mut self) -> &mut StoreOf<'m, M> {
        self.store.as_mut().expect("the store is open until the boot stops")
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<(), Violation> {
        if self.over {
            return Ok(());
        }
        self.story.tell(|| format!("{step:?}"));
        match step {
            Step::Append { rows, states } => self.append(rows, states)?,
            Step::Lose(stream, records) => self.lose(*stream, *records)?,
            Step::Bound(records) => {
                self.store().set_volatile_bound(*records);
                self.bound = self.store().volatile_bound();
            }
            Step::Commit => self.commit()?,
            Step::Begin => self.begin()?,
            Step::Sync => {
                if let Some((ticket, _)) = self.ticket.take() {
                    let synced = self.store().parts().0.sync();
                    self.ticket = Some((ticket, Some(synced)));
                    self.hand_over();
                }
            }
            Step::End => self.end()?,
            Step::Rewrite(steps) => self.rewrite(*steps)?,
            Step::FailSyncs(fail) => _ = self.medium(|m| m.fail_syncs(*fail)),
            Step::FailWrites(at, count) => self.medium(|m| m.fail_writes(*at, *count)),
            Step::WearOut(segment, wear) => {
                let shape = self.shape;
                self.medium(|m| m.wear_out(&shape, *segment, *wear));
            }
        }
        Ok(())
    }

    fn medium<T>(&mut self, act: impl FnOnce(&mut M) -> T) -> T {
        act(M::inside(self.store().parts().0))
    }

    /// Hands over the cuts of the call that has just ended; the floor may have been raised in it.
    fn hand_over(&mut self) {
        if self.story.is_told() {
            let ops = self.medium(|m| m.op_log().iter().map(ToString::to_string).collect::<Vec<_>>());
            let told = std::mem::replace(&mut self.told, ops.len());
            if ops.len() > told {
                self.story.tell(|| format!("  operations: {}", ops[told..].join(", ")));
            }
        }
        if self.store().stats().segments_dropped > 0 {
            self.world.main.forget_boots();
        }
        let floors = floors_of(self.store().catalog());
        self.world.main.floors(floors, false);
        let cuts = self.medium(|m| m.take_cuts());
        self.tally.operations += cuts.len() as u64;
        if let Some(tap) = self.tap {
            for cut in cuts {
                tap(cut, self.world);
            }
        }
    }

    /// The call went well: what it may have published is published.
    fn published(&mut self) {
        let floors = floors_of(self.store().catalog());
        self.world.main.floors(floors, true);
    }

    fn append(&mut self, rows: &[(u8, u32)], states: &[u8]) -> Result<(), Violation> {
        let names: Vec<u16> = rows.iter().map(|(stream, _)| self.store().stream(&stream_name(*stream))).collect();
        let tags: Vec<u64> = self.world.main.tags(rows.len() as u64).collect();
        let values: Vec<u64> = self.world.main.tags(states.len() as u64).collect();
        let mut bodies: Vec<Vec<u8>> = rows.iter().map(|(_, len)| vec![0; *len as usize]).collect();
        bodies.iter_mut().zip(&tags).for_each(|(body, tag)| fill_body(*tag, body));
        let records: Vec<_> =
            tags.iter().zip(&names).zip(&bodies).map(|((tag, name), body)| row_of(*tag, *name, body)).collect();
        let pairs: Vec<([u8; 2], [u8; 8])> =
            states.iter().zip(&values).map(|(key, value)| (state_key(*key), value.to_le_bytes())).collect();
        let entries: Vec<(&[u8], &[u8])> = pairs.iter().map(|(k, v)| (&k[..], &v[..])).collect();
        let mut result = self.store().append(&records, &entries);
        if matches!(result, Err(StoreError::MemtableFull)) && self.ticket.is_none() {
            self.commit()?;
            result = self.store().append(&records, &entries);
        }
        match result {
            Ok(numbers) => {
                let known: Vec<_> = rows.iter().zip(&tags).map(|((stream, len), tag)| (*stream, *tag, *len)).collect();
                let entries = states.iter().copied().zip(values).collect();
                self.world.main.appended(numbers, &known, entries)?;
                let limit = self.store().ram_limit();
                self.world.main.ram_limit(limit);
            }
            Err(e) => self.refused(&format!("append: {e:?}")),
        }
        Ok(())
    }

    fn lose(&mut self, stream: u8, records: u32) -> Result<(), Violation> {
        let id = self.store().stream(&stream_name(stream));
        let lost = Lost { records, stream: Some(id), cause: GapCause::Overload, since_us: 1, until_us: 2 };
        match self.store().append_lost(&lost) {
            Ok(numbers) => self.world.main.appended_lost(numbers, stream, records)?,
            Err(e) => self.refused(&format!("lose: {e:?}")),
        }
        let limit = self.store().ram_limit();
        self.world.main.ram_limit(limit);
        Ok(())
    }

    fn refused(&mut self, text: &str) {
        self.story.tell(|| format!("  refused: {text}"));
    }

    fn writing(&mut self) {
        let epoch = self.store().report().epoch;
        let nothing = self.store().memtable_bytes().0 == 0;
        if !nothing {
            self.wrote = true;
            self.world.main.writing(epoch, self.bound);
        }
    }

    fn begin(&mut self) -> Result<(), Violation> {
        if self.ticket.is_some() {
            return Ok(());
        }
        self.writing();
        let begun = self.store().begin_commit();
        self.hand_over();
        match begun {
            Ok(Some(ticket)) => {
                self.started();
                self.ticket = Some((ticket, None));
            }
            Ok(None) => {}
            Err(e) => self.give_up(&format!("begin: {e:?}")),
        }
        Ok(())
    }

    /// The origin is synced: what this mount saw is bound.
    fn started(&mut self) {
        self.published();
        self.world.main.started();
        self.world.alternative = None;
    }

    fn end(&mut self) -> Result<(), Violation> {
        let Some((ticket, synced)) = self.ticket.take() else { return Ok(()) };
        let Some(synced) = synced else {
            self.ticket = Some((ticket, synced));
            return Ok(());
        };
        let ended = self.store().end_commit(ticket, synced);
        self.hand_over();
        match ended {
            Ok(upto) => self.acknowledged(upto),
            Err(e) => {
                self.give_up(&format!("end: {e:?}"));
                Ok(())
            }
        }
    }

    fn commit(&mut self) -> Result<(), Violation> {
        if self.ticket.is_some() {
            return Ok(());
        }
        self.writing();
        let committed = self.store().commit();
        self.hand_over();
        match committed {
            Ok(upto) => {
                if self.wrote {
                    self.started();
                }
                self.acknowledged(upto)
            }
            Err(e) => {
                self.give_up(&format!("commit: {e:?}"));
                Ok(())
            }
        }
    }

    /// Steps of rewriting. What they leave out is found by looking: the model only knows who may be hit.
    fn rewrite(&mut self, steps: u32) -> Result<(), Violation> {
        for nth in 0..steps {
            let before = self.store().stats();
            let now_us = u64::from(nth);
            let stepped = self.store().step(now_us, true);
            let left_out = if self.store().stats().edits == before.edits { Vec::new() } else { self.missing()? };
            self.world.main.evicted(&left_out, false)?;
            self.hand_over();
            match stepped {
                Ok(stepped) => {
                    self.published();
                    self.world.main.evicted(&left_out, true)?;
                    if stepped == Stepped::Idle {
                        break;
                    }
                }
                Err(e) => {
                    self.give_up(&format!("step: {e:?}"));
                    break;
                }
            }
        }
        Ok(())
    }

    /// The numbers that are in no table any more.
    fn missing(&mut self) -> Result<Vec<u64>, Violation> {
        let mut mem = self.scan.parts();
        let (storage, catalog) = self.store.as_mut().expect("the store is open until the boot stops").parts();
        let items = scan_all(storage, catalog, &mut mem, false)?;
        let log_floor = catalog.log_floor();
        let gone = items.iter().filter_map(|item| match item {
            Item::Gap { first, last, cause: GapCause::Retention } => Some(*first..=*last),
            _ => None,
        });
        let gone: Vec<u64> = gone.flatten().filter(|seq| *seq < log_floor && self.world.main.is_owed(*seq)).collect();
        let floors = floors_of(catalog);
        Ok(self.world.main.not_below(&gone, floors))
    }

    fn acknowledged(&mut self, upto: u64) -> Result<(), Violation> {
        self.published();
        let before = self.world.main.durable();
        if upto >= before && self.wrote {
            self.world.main.acknowledged(upto)?;
            self.tally.acknowledged += upto - before;
        }
        let limit = self.store().ram_limit();
        self.world.main.ram_limit(limit);
        Ok(())
    }

    /// The store is read-only: nothing more comes of this boot.
    fn give_up(&mut self, text: &str) {
        self.refused(text);
        self.over = true;
    }

    pub(super) fn stop(mut self, stop: Stop) -> Result<M, Violation> {
        self.story.tell(|| format!("{stop:?}"));
        if stop == Stop::Close && !self.over {
            self.end_pending()?;
            self.close()?;
        }
        let store = self.store.take().expect("the store is open until the boot stops");
        let medium = M::of_storage(store.into_storage());
        Ok(match stop {
            Stop::Close => medium.power_cycle(Fate::None),
            Stop::Crash(fate) => medium.power_cycle(fate),
        })
    }

    fn end_pending(&mut self) -> Result<(), Violation> {
        if let Some((ticket, None)) = self.ticket.take() {
            let synced = self.store().parts().0.sync();
            self.hand_over();
            self.ticket = Some((ticket, Some(synced)));
        }
        self.end()
    }

    fn close(&mut self) -> Result<(), Violation> {
        self.commit()?;
        if self.over {
            return Ok(());
        }
        if self.wrote {
            self.world.main.closing(false);
        }
        let closed = self.store().close();
        self.hand_over();
        match closed {
            Ok(upto) => {
                if self.wrote {
                    self.world.main.closing(true);
                }
                self.acknowledged(upto)
            }
            Err(e) => {
                self.give_up(&format!("close: {e:?}"));
                Ok(())
            }
        }
    }
}
