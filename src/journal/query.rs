//! `history.get`.

use super::record::shorten;
use super::state::State;
use crate::message::payload::{Error, ErrorCode, History, HistoryGet, Record};

/// Records of an answer, unless the request says otherwise.
const LIMIT: usize = 100;
/// Most that it may ask for.
const LARGEST_LIMIT: usize = 1_000;

fn fits(query: &HistoryGet, record: &Record) -> bool {
    query.token.as_ref().is_none_or(|t| record.token == *t)
        && query.code.is_none_or(|c| record.code == c)
        && query.ctime.is_none_or(|t| record.ctime >= t)
        && query.etime.is_none_or(|t| record.etime >= t)
        && query.id.is_none_or(|id| record.id > id)
}

impl State {
    /// See [`super::Journal::history`].
    pub fn history(&mut self, query: &HistoryGet, bytes: usize) -> Result<History, Error> {
        let invalid = |message: &str| Error::new(ErrorCode::Invalid, message);
        if query.token.is_none()
            && query.code.is_none()
            && query.ctime.is_none()
            && query.etime.is_none()
            && query.id.is_none()
        {
            return Err(invalid(
                "at least one of token, code, ctime, etime and id must be given",
            ));
        }
        let limit = query.limit.unwrap_or(LIMIT);
        if !(1..=LARGEST_LIMIT).contains(&limit) {
            return Err(invalid("limit must be 1 to 1000"));
        }
        // Reading for the link goes on where it was.
        let cursor = self.disk.as_ref().and_then(|d| d.cursor);
        let mut answer = History {
            last: self.last(),
            ..History::default()
        };
        let mut size =
            serde_json::to_string(&answer).map_or(0, |json| json.len() + ",\"more\":true".len());
        let mut id = query.id.unwrap_or(0);
        while let Some(mut record) = self.next(id) {
            id = record.id;
            if !fits(query, &record) {
                continue;
            }
            let room = bytes.saturating_sub(size);
            let mut length = json_length(&record);
            // One that is too large for any answer is given without its bulk, and where that does not help as it is:
            // the caller says so, and whoever asks can come past it.
            if length > room && answer.records.is_empty() {
                shorten(&mut record);
                length = json_length(&record);
            }
            if answer.records.len() == limit || (length > room && !answer.records.is_empty()) {
                answer.more = true;
                break;
            }
            size += length;
            answer.records.push(record);
        }
        if let Some(disk) = &mut self.disk {
            disk.cursor = cursor;
        }
        Ok(answer)
    }
}

/// With the comma behind it.
fn json_length(record: &Record) -> usize {
    serde_json::to_string(record).map_or(usize::MAX, |json| json.len() + 1)
}
