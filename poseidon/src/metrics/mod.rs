//! What heartbeats say, kept over time: a point a minute for a day, and one in a quarter of an hour for a month.
//!
//! Points are gathered in memory and written as chunks: one row for each instance and half an hour, written anew every five
//! minutes, so that the store has no work for a heartbeat. A kill loses what was not written: five minutes of a plot. Chunks that
//! are older than a day are averaged into coarser ones.

pub mod chunk;
pub mod reading;

use crate::agents::Key;
use crate::jobs::lock;
use crate::server::{App, stopped};
use crate::store::Store;
use crate::store::metrics::Chunk;
use crate::time::now;
use chunk::{All, Series};
use reading::{Counters, Reading};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

/// Seconds between two fine points, and points of a fine chunk.
pub const FINE: u32 = 60;
const FINE_POINTS: u32 = 30;
/// The same for coarse ones.
pub const COARSE: u32 = 900;
const COARSE_POINTS: u32 = 48;
/// How long fine points are kept.
const FINE_SECONDS: i64 = 86_400;
/// Series of one instance in one chunk: what a device may have, and as much again.
const MAX_SERIES: usize = 192;
/// How often chunks are written.
const FLUSH: Duration = Duration::from_mins(5);
/// Chunks in one call to the store.
const BATCH: usize = 500;
/// Old chunks that are averaged in one call.
const FOLD: u32 = 200;
/// Seconds in a day.
const DAY: i64 = 86_400;

/// The minute that is gathered, and the chunk that it belongs to.
#[derive(Default)]
struct Live {
    start: i64,
    minute: usize,
    /// Sum and count of each reading in this minute.
    sums: BTreeMap<String, (f64, u32)>,
    series: All,
    counters: Counters,
    dirty: bool,
}

/// The metrics of all agents.
#[derive(Default)]
pub struct Metrics {
    live: Mutex<HashMap<Key, Live>>,
    /// Chunks that are full and not written yet.
    full: Mutex<Vec<Chunk>>,
    written: AtomicUsize,
}

impl Metrics {
    /// Takes a whole heartbeat that came at `at`.
    pub fn take(&self, key: &Key, health: &Map<String, Value>, at: f64) {
        let mut all = lock(&self.live);
        let live = match all.get_mut(key) {
            Some(live) => live,
            None => all.entry(key.clone()).or_default(),
        };
        let readings = reading::read(health, at, &mut live.counters);
        let full = live.add(readings, at);
        drop(all);
        if let Some((start, series)) = full {
            lock(&self.full).push(chunk_of(key, start, &series));
        }
    }

    /// Fine chunks of an instance that may not be written yet.
    fn unwritten(&self, key: &Key) -> Vec<(i64, All)> {
        let of =
            |chunk: &&Chunk| chunk.identifier == key.identifier && chunk.instance == key.instance;
        let mut chunks: Vec<_> = lock(&self.full)
            .iter()
            .filter(of)
            .map(|chunk| (chunk.start, chunk::read(&chunk.data)))
            .collect();
        if let Some(live) = lock(&self.live).get(key) {
            let mut series = live.series.clone();
            live.close_into(&mut series);
            chunks.push((live.start, series));
        }
        chunks
    }

    /// An instance is gone, and what is in memory of it: who says a new one on each connection would fill it otherwise.
    pub fn forget(&self, key: &Key) {
        lock(&self.live).remove(key);
    }

    /// All instances of an identifier are gone.
    pub fn forget_all(&self, identifier: &str) {
        lock(&self.live).retain(|key, _| key.identifier != identifier);
    }

    /// Instances whose readings are in memory, for tests.
    pub fn gathered(&self) -> usize {
        lock(&self.live).len()
    }

    /// Chunks that were written since the start, for tests and the log.
    pub fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    /// What has to be written. Instances that are silent since their chunk's end are forgotten here.
    fn take_dirty(&self, at: f64) -> Vec<Chunk> {
        let mut chunks = std::mem::take(&mut *lock(&self.full));
        let old = start_of(at, FINE, FINE_POINTS) - i64::from(FINE * FINE_POINTS);
        let mut all = lock(&self.live);
        for (key, live) in all.iter_mut() {
            if std::mem::take(&mut live.dirty) {
                let mut series = live.series.clone();
                live.close_into(&mut series);
                chunks.push(chunk_of(key, live.start, &series));
            }
        }
        all.retain(|_, live| live.start >= old);
        chunks
    }

    /// What could not be written is written with the next, where its half hour is not over.
    fn keep_dirty(&self, chunks: &[Chunk]) {
        let mut all = lock(&self.live);
        for chunk in chunks {
            let key = Key {
                identifier: chunk.identifier.clone(),
                instance: chunk.instance.clone(),
            };
            if let Some(live) = all.get_mut(&key) {
                live.dirty |= live.start == chunk.start;
            }
        }
    }

    /// Writes what is new; one call to the store for many instances.
    pub async fn flush(&self, app: &App, at: f64) {
        let chunks = self.take_dirty(at);
        for batch in chunks.chunks(BATCH) {
            let (written, batch) = (batch, batch.to_vec());
            let count = batch.len();
            let done = app.db.call(move |store| {
                // After a restart the store has the beginning of the same chunk.
                let mut whole = Vec::with_capacity(batch.len());
                for mut chunk in batch {
                    let known =
                        store.chunk(&chunk.identifier, &chunk.instance, FINE, chunk.start)?;
                    if let Some(known) = known {
                        let mut all = chunk::read(&known);
                        chunk::merge(&mut all, chunk::read(&chunk.data));
                        bound(&mut all);
                        chunk.data = chunk::write(&all);
                    }
                    whole.push(chunk);
                }
                store.put_chunks(&whole)
            });
            match done.await {
                Ok(()) => {
                    self.written.fetch_add(count, Ordering::Relaxed);
                }
                Err(e) => {
                    log::error!("metrics of {count} agents are not stored: {e}");
                    self.keep_dirty(written);
                }
            }
        }
    }
}

impl Live {
    /// Adds readings; gives back the chunk before where they begin another.
    fn add(&mut self, readings: Vec<Reading>, at: f64) -> Option<(i64, All)> {
        let start = start_of(at, FINE, FINE_POINTS);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let minute = ((at - start as f64) as usize / FINE as usize).min(FINE_POINTS as usize - 1);
        let mut full = None;
        if start != self.start || minute != self.minute {
            let mut series = std::mem::take(&mut self.series);
            self.close_into(&mut series);
            self.sums.clear();
            if start == self.start {
                self.series = series;
            } else if !series.is_empty() {
                full = Some((self.start, series));
            }
            (self.start, self.minute) = (start, minute);
        }
        for Reading { name, unit, value } in readings {
            if !self.series.contains_key(&name) {
                if self.series.len() >= MAX_SERIES {
                    continue;
                }
                let points = Vec::new();
                self.series.insert(name.clone(), Series { unit, points });
            } else if let Some(series) = self.series.get_mut(&name)
                && series.unit != unit
            {
                series.unit = unit;
            }
            let (sum, count) = self.sums.entry(name).or_default();
            *sum += value;
            *count += 1;
        }
        self.dirty = true;
        full
    }

    /// Writes the averages of this minute.
    fn close_into(&self, series: &mut All) {
        for (name, (sum, count)) in &self.sums {
            if let Some(series) = series.get_mut(name) {
                series
                    .points
                    .resize(self.minute.max(series.points.len()), f32::NAN);
                series.points.truncate(self.minute);
                #[allow(clippy::cast_possible_truncation)]
                series.points.push((sum / f64::from(*count)) as f32);
            }
        }
    }
}

fn chunk_of(key: &Key, start: i64, series: &All) -> Chunk {
    Chunk {
        identifier: key.identifier.clone(),
        instance: key.instance.clone(),
        step: FINE,
        start,
        data: chunk::write(series),
    }
}

/// Where the chunk begins that a time is in.
#[allow(clippy::cast_possible_truncation)]
fn start_of(at: f64, step: u32, points: u32) -> i64 {
    let length = i64::from(step * points);
    (at as i64).div_euclid(length) * length
}

/// Who sends other names all the time has only the first.
fn bound(all: &mut All) {
    while all.len() > MAX_SERIES {
        all.pop_last();
    }
}

/// Averages fine chunks that are too old into coarse ones, and deletes coarse ones that are; returns how many it had.
pub fn fold(store: &mut dyn Store, now: f64, days: u32) -> crate::store::Result<usize> {
    #[allow(clippy::cast_possible_truncation)]
    let now = now as i64;
    let old = store.old_chunks(COARSE, now - i64::from(days) * DAY, FOLD)?;
    for chunk in &old {
        store.delete_chunk(chunk)?;
    }
    // Those of one instance together, since they go into one coarse chunk.
    let fine = store.old_chunks(FINE, now - FINE_SECONDS, FOLD)?;
    let mut coarse: BTreeMap<(String, String, i64), All> = BTreeMap::new();
    for chunk in &fine {
        let start = start_of(chunk.start as f64, COARSE, COARSE_POINTS);
        let place = (chunk.identifier.clone(), chunk.instance.clone(), start);
        let all = match coarse.entry(place) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                let known = store.chunk(&chunk.identifier, &chunk.instance, COARSE, start)?;
                new.insert(known.map(|data| chunk::read(&data)).unwrap_or_default())
            }
        };
        chunk::merge(
            all,
            averaged(&chunk::read(&chunk.data), chunk.start - start),
        );
        bound(all);
        store.delete_chunk(chunk)?;
    }
    let chunks: Vec<Chunk> = coarse
        .into_iter()
        .map(|((identifier, instance, start), all)| Chunk {
            identifier,
            instance,
            step: COARSE,
            start,
            data: chunk::write(&all),
        })
        .collect();
    store.put_chunks(&chunks)?;
    Ok(old.len() + fine.len())
}

/// Coarse points of fine ones that begin `offset` seconds behind the coarse chunk.
fn averaged(fine: &All, offset: i64) -> All {
    let per = (COARSE / FINE) as usize;
    let before = usize::try_from(offset).unwrap_or(0) / COARSE as usize;
    let of = |series: &Series| {
        let mut points = vec![f32::NAN; before];
        points.extend(series.points.chunks(per).map(average));
        Series {
            unit: series.unit.clone(),
            points,
        }
    };
    fine.iter()
        .map(|(name, series)| (name.clone(), of(series)))
        .collect()
}

/// NaN where nothing is known. An older Poseidon may have stored what is infinite.
fn average(points: &[f32]) -> f32 {
    let (sum, count) = points
        .iter()
        .filter(|point| point.is_finite())
        .fold((0.0, 0.0), |(sum, count), point| {
            (sum + f64::from(*point), count + 1.0)
        });
    #[allow(clippy::cast_possible_truncation)]
    let average = (sum / count) as f32;
    average
}

/// A series for people: its points as time and value.
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// In the order of time.
    pub points: Vec<(i64, f32)>,
}

/// The points of a series while they are gathered: sum and count for each step.
#[derive(Default)]
struct Gathered {
    unit: String,
    points: BTreeMap<i64, (f64, u32)>,
}

/// What is known of an instance from `from` until `until`, in steps of `step` seconds; of the series with these names, or of all.
pub async fn lines(
    app: &App,
    key: &Key,
    names: &BTreeSet<String>,
    (from, until): (i64, i64),
    step: i64,
) -> crate::store::Result<Vec<Line>> {
    let owned = key.clone();
    let chunks = app
        .db
        .call(move |store| {
            let mut chunks = Vec::new();
            for (step, points) in [(COARSE, COARSE_POINTS), (FINE, FINE_POINTS)] {
                let from = start_of(from as f64, step, points);
                chunks.extend(store.chunks(&owned.identifier, &owned.instance, step, from)?);
            }
            Ok(chunks)
        })
        .await?;
    let mut gathered: BTreeMap<String, Gathered> = BTreeMap::new();
    let mut add = |start: i64, width: u32, all: All| {
        for (name, series) in all {
            if !names.is_empty() && !names.contains(&name) {
                continue;
            }
            let Gathered { unit, points } = gathered.entry(name).or_default();
            *unit = series.unit;
            for (at, value) in (start..).step_by(width as usize).zip(series.points) {
                if value.is_finite() && (from..=until).contains(&at) {
                    let (sum, count) = points.entry(at.div_euclid(step) * step).or_default();
                    *sum += f64::from(value);
                    *count += 1;
                }
            }
        }
    };
    let mut fine: BTreeMap<i64, All> = BTreeMap::new();
    for chunk in chunks {
        let all = chunk::read(&chunk.data);
        if chunk.step == FINE {
            fine.insert(chunk.start, all);
        } else {
            add(chunk.start, chunk.step, all);
        }
    }
    // What is in memory knows the same points, and later ones.
    for (start, newer) in app.metrics.unwritten(key) {
        chunk::merge(fine.entry(start).or_default(), newer);
    }
    for (start, all) in fine {
        add(start, FINE, all);
    }
    Ok(gathered
        .into_iter()
        .map(|(name, Gathered { unit, points })| Line {
            name,
            unit,
            #[allow(clippy::cast_possible_truncation)]
            points: points
                .into_iter()
                .map(|(at, (sum, count))| (at, (sum / f64::from(count)) as f32))
                .collect(),
        })
        .filter(|line| !line.points.is_empty())
        .collect())
}

/// Writes and averages from time to time, until the server stops.
pub async fn keep(app: Arc<App>) {
    let mut stop = app.stop.clone();
    loop {
        tokio::select! {
            () = sleep(FLUSH) => {}
            () = stopped(&mut stop) => return,
        }
        app.metrics.flush(&app, now()).await;
        let days = app.settings.metrics_days;
        loop {
            match app.db.call(move |store| fold(store, now(), days)).await {
                Ok(0) => break,
                Ok(_) if *app.stop.borrow() => break,
                Ok(_) => {}
                Err(e) => {
                    log::error!("old metrics are not averaged: {e}");
                    break;
                }
            }
        }
    }
}
