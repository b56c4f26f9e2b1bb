//! One envelope, turned into one record.

use super::{
    Context, Error, Kind, Target,
    enrichment::Enrichment,
    fields::{Fields, given, string, text, whole_number},
    headers, json,
    members::{PROJECT, SERVER_TIME, SOURCE, TIMESTAMP},
    splice::{self, Addition, Existing},
};
use crate::produce::{Header, Record, TopicName};
use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Reads a body that holds one envelope.
pub fn parse_record(body: &Bytes, target: Target<'_>, context: &Context<'_>) -> Result<Record, Error> {
    let text = json::text(body)?;
    Reader::new(body, target, context, BytesMut::new()).record(text)
}

/// Turns the envelopes of one body into records.
pub(super) struct Reader<'a> {
    /// The whole body, of which keys and untouched values are slices.
    body: &'a Bytes,
    /// The body holds a backslash.
    escapes: bool,
    target: Target<'a>,
    context: &'a Context<'a>,
    /// Where the values are spliced.
    buffer: BytesMut,
    /// Headers that the rest of the body may have.
    headers_left: usize,
    /// What enriched messages get; made for the first of them.
    enrichment: Option<Enrichment>,
    /// The topic of the last record: those of a batch often have the same.
    last_topic: Option<TopicName>,
}

impl<'a> Reader<'a> {
    pub fn new(body: &'a Bytes, target: Target<'a>, context: &'a Context<'a>, buffer: BytesMut) -> Self {
        let escapes = memchr::memchr(b'\\', body).is_some();
        Self {
            body,
            escapes,
            target,
            context,
            buffer,
            headers_left: headers::MAX_A_BODY,
            enrichment: None,
            last_topic: None,
        }
    }

    /// `text` must be a part of the body.
    pub fn record(&mut self, text: &str) -> Result<Record, Error> {
        self.record_of(&Fields::parse(text)?)
    }

    /// `fields` must be parts of the body.
    pub fn record_of(&mut self, fields: &Fields<'_>) -> Result<Record, Error> {
        // all of it: members that are ignored are no reason to read what no reader could parse
        if fields.too_deep {
            return Err(json::too_deep());
        }
        let form = Form::of(fields)?;
        let topic = self.topic(fields)?;
        let key = self.key(fields)?;
        let partition = self.partition(fields)?;
        let headers = self.headers(fields)?;
        let timestamp = timestamp(fields)?.unwrap_or(self.context.now_ms);
        let value = match form {
            Form::Value { value, project } => Some(self.value(value, project)?),
            Form::Message { message, project } => Some(self.message(message, project, timestamp)?),
            Form::Tombstone if key.is_none() => {
                return Err(Error::new(
                    Kind::InvalidKey,
                    "a tombstone needs a `key`, whose record it deletes",
                ));
            }
            Form::Tombstone => None,
        };
        let automatic = self.context.automatic.clone();
        Ok(Record { topic, partition, key, value, headers, automatic, timestamp, receipt: None })
    }

    pub fn max_records(&self) -> usize {
        self.context.max_records
    }

    fn topic(&mut self, fields: &Fields<'_>) -> Result<TopicName, Error> {
        let topic = match (self.target, given(fields.topic)) {
            (Target::Fixed(topic), _) => return Ok(topic.clone()),
            (Target::Named, None) => {
                return Err(Error::new(
                    Kind::MissingTopic,
                    "the body must have a `topic`, the name of a Kafka topic",
                ));
            }
            (Target::Named, Some(topic)) => string(topic, Kind::InvalidTopic, "topic")?,
        };
        if let Some(last) = self.last_topic.as_ref().filter(|last| last.as_str() == topic) {
            return Ok(last.clone());
        }
        let topic = TopicName::parse(&topic)
            .map_err(|reason| Error::new(Kind::InvalidTopic, format!("`topic` is not a topic: {reason}")))?;
        self.last_topic = Some(topic.clone());
        Ok(topic)
    }

    fn headers(&mut self, fields: &Fields<'_>) -> Result<Vec<Header>, Error> {
        let Some(member) = given(fields.headers) else { return Ok(Vec::new()) };
        let headers = headers::parse(member, self.body)?;
        self.headers_left = self.headers_left.checked_sub(headers.len()).ok_or_else(|| {
            let detail =
                format!("the records of the body have more than {} headers together", headers::MAX_A_BODY);
            Error::new(Kind::InvalidHeader, detail)
        })?;
        Ok(headers)
    }

    fn key(&self, fields: &Fields<'_>) -> Result<Option<Bytes>, Error> {
        let Some(key) = given(fields.key) else { return Ok(None) };
        Ok(match string(key, Kind::InvalidKey, "key")? {
            key if key.is_empty() => None,
            Cow::Borrowed(key) => Some(self.body.slice_ref(key.as_bytes())),
            Cow::Owned(key) => Some(key.into()),
        })
    }

    /// None lets the partitioner choose, which −1 asks for.
    fn partition(&self, fields: &Fields<'_>) -> Result<Option<i32>, Error> {
        let Some(partition) = given(fields.partition).filter(|_| matches!(self.target, Target::Named)) else {
            return Ok(None);
        };
        match whole_number(partition).map(i32::try_from) {
            Some(Ok(-1)) => Ok(None),
            Some(Ok(partition)) if partition >= 0 => Ok(Some(partition)),
            _ => Err(Error::new(
                Kind::InvalidPartition,
                format!("`partition` must be a whole number from 0 to {}, or -1 for any", i32::MAX),
            )),
        }
    }

    fn value(&mut self, value: &RawValue, project: &RawValue) -> Result<Bytes, Error> {
        if !value.get().starts_with('{') {
            return Ok(splice::into_wrapper(value.get(), project.get(), &mut self.buffer));
        }
        let additions = [Addition { name: &PROJECT, json: project.get(), existing: Existing::Replace }];
        splice::into_object(value.get(), &additions, self.escapes, &mut self.buffer)
    }

    fn message(
        &mut self,
        message: &RawValue,
        project: Option<&RawValue>,
        timestamp: i64,
    ) -> Result<Bytes, Error> {
        let project = project.map(|project| Addition {
            name: &PROJECT,
            json: project.get(),
            existing: Existing::Replace,
        });
        let Some(source) = self.context.source else {
            return match project {
                Some(project) => {
                    splice::into_object(message.get(), &[project], self.escapes, &mut self.buffer)
                }
                None => Ok(self.body.slice_ref(message.get().as_bytes())),
            };
        };
        let enrichment =
            self.enrichment.get_or_insert_with(|| Enrichment::new(source, self.context.now_ms)).at(timestamp);
        let keep = |name, json| Addition { name, json, existing: Existing::Keep };
        let timestamp = keep(&TIMESTAMP, enrichment.timestamp());
        let source = keep(&SOURCE, enrichment.source());
        let server_time = keep(&SERVER_TIME, enrichment.server_time());
        match project {
            Some(project) => splice::into_object(
                message.get(),
                &[project, timestamp, source, server_time],
                self.escapes,
                &mut self.buffer,
            ),
            None => splice::into_object(
                message.get(),
                &[timestamp, source, server_time],
                self.escapes,
                &mut self.buffer,
            ),
        }
    }
}

/// Which of the body forms an envelope has.
enum Form<'a> {
    Value { value: &'a RawValue, project: &'a RawValue },
    Message { message: &'a RawValue, project: Option<&'a RawValue> },
    Tombstone,
}

impl<'a> Form<'a> {
    fn of(fields: &Fields<'a>) -> Result<Self, Error> {
        let message = given(fields.message);
        if asks_for_tombstone(fields)? {
            if given(fields.value).is_some() || message.is_some() {
                let detail = "a tombstone has no `value` and no `message`; leave them out or send null";
                return Err(Error::new(Kind::InvalidBody, detail));
            }
            return Ok(Self::Tombstone);
        }
        match (fields.value, message) {
            (Some(_), Some(_)) => Err(Error::new(
                Kind::InvalidBody,
                "the body has both `value` and `message`; send one of them",
            )),
            (None, None) => Err(Error::new(
                Kind::MissingValue,
                "the body must have a `value`, any JSON, or a `message`, an object",
            )),
            (Some(value), None) => {
                let project = fields.project.ok_or_else(missing_project)?;
                check_project(project)?;
                Ok(Self::Value { value, project })
            }
            (None, Some(message)) if message.get().starts_with('{') => {
                let project = given(fields.project);
                project.map_or(Ok(()), check_project)?;
                Ok(Self::Message { message, project })
            }
            (None, Some(_)) => {
                Err(Error::new(Kind::InvalidBody, "`message` must be an object; `value` may be any JSON"))
            }
        }
    }
}

fn asks_for_tombstone(fields: &Fields<'_>) -> Result<bool, Error> {
    match given(fields.tombstone).map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Error::new(Kind::InvalidBody, "`tombstone` must be true or false")),
    }
}

fn missing_project() -> Error {
    Error::new(Kind::MissingProject, "the body must have a `project`, a string that is not blank")
}

fn check_project(project: &RawValue) -> Result<(), Error> {
    let project = text(project).ok_or_else(missing_project)?;
    // the byte order mark is blank to whoever sees it
    if project.chars().all(|c| c.is_whitespace() || c == '\u{feff}') {
        Err(missing_project())
    } else {
        Ok(())
    }
}

/// Smaller numbers are seconds that were meant to be milliseconds: as such they are before March 1973, and as seconds
/// after it.
const FIRST_MILLIS: i64 = 100_000_000_000;

/// Milliseconds since the Unix epoch.
fn timestamp(fields: &Fields<'_>) -> Result<Option<i64>, Error> {
    let Some(timestamp) = given(fields.timestamp) else { return Ok(None) };
    let number = whole_number(timestamp);
    if number.is_some_and(|number| (1..FIRST_MILLIS).contains(&number)) {
        return Err(Error::new(
            Kind::InvalidTimestamp,
            "`timestamp` looks like seconds: send milliseconds since 1970, or, for a time before March 1973, \
             an RFC 3339 date and time",
        ));
    }
    let millis = number.or_else(|| parse_rfc3339(&text(timestamp)?));
    // Kafka takes 0 for "no timestamp", and jiff's last moment is the end of the year 9999
    match millis.filter(|millis| (1..=jiff::Timestamp::MAX.as_millisecond()).contains(millis)) {
        Some(millis) => Ok(Some(millis)),
        None => Err(Error::new(
            Kind::InvalidTimestamp,
            "`timestamp` must be milliseconds since 1970 as a whole number above 0, or an RFC 3339 date and time, \
             without a name of the zone in brackets, before the last day of the year 9999",
        )),
    }
}

/// RFC 3339, also with a space for the `T`, and read as UTC where the zone is missing. Not with a zone by its name
/// (RFC 9557), which jiff would take and then ignore.
fn parse_rfc3339(text: &str) -> Option<i64> {
    if !text.contains(':') || text.contains('[') {
        return None;
    }
    let zoned = text.parse::<jiff::Timestamp>();
    let utc = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    zoned.ok().or_else(|| utc().map(|utc| utc.timestamp())).map(jiff::Timestamp::as_millisecond)
}
