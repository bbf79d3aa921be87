//! Metrics over time, as they are stored.

use super::Result;

/// A piece of the time of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Hash of the identifier.
    pub identifier: String,
    /// Instance id.
    pub instance: String,
    /// Seconds between two points.
    pub step: u32,
    /// Unix time of the first point.
    pub start: i64,
    /// All series, as `metrics::chunk` writes them.
    pub data: Vec<u8>,
}

/// What a store of metrics does.
pub trait MetricStore {
    /// Adds chunks or puts them in the place of earlier ones; those of instances that are gone are skipped.
    fn put_chunks(&mut self, chunks: &[Chunk]) -> Result<()>;
    /// The chunks of an instance with this step that begin at or after `from`, oldest first.
    fn chunks(
        &mut self,
        identifier: &str,
        instance: &str,
        step: u32,
        from: i64,
    ) -> Result<Vec<Chunk>>;
    /// Some of the chunks of all instances with this step that begin before `before`.
    fn old_chunks(&mut self, step: u32, before: i64, at_most: u32) -> Result<Vec<Chunk>>;
    /// One chunk.
    fn chunk(
        &mut self,
        identifier: &str,
        instance: &str,
        step: u32,
        start: i64,
    ) -> Result<Option<Vec<u8>>>;
    /// Deletes one chunk.
    fn delete_chunk(&mut self, chunk: &Chunk) -> Result<()>;
}
