//! Templates and what their builds wrote.

use std::time::SystemTime;

use createos_sdk::TemplateId;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, named_params, params};

use super::record::{from_micros, json, text, to_json, to_micros};
use super::{InsertError, Store, StoreError};
use crate::core::Progress;
use crate::runtime::ImageConfig;

const COLUMNS: &str = "id, name, base, dockerfile, status, size_bytes, config, created_at, \
                       built_at, deleted_at";

/// A template as the store knows it.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    pub(crate) id: TemplateId,
    pub(crate) name: String,
    /// The image it is built on.
    pub(crate) base: String,
    pub(crate) dockerfile: String,
    pub(crate) progress: Progress,
    pub(crate) size_bytes: u64,
    /// What programs in its sandboxes get from it.
    pub(crate) config: ImageConfig,
    pub(crate) created_at: SystemTime,
    pub(crate) built_at: Option<SystemTime>,
    pub(crate) is_deleted: bool,
}

/// One page of a list, and how many rows there are in all.
#[derive(Debug)]
pub(crate) struct TemplatePage {
    pub(crate) rows: Vec<Template>,
    pub(crate) total: u64,
}

/// A line of a build's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    /// Its number, from 1.
    pub(crate) place: u64,
    pub(crate) at: SystemTime,
    pub(crate) level: String,
    pub(crate) line: String,
}

impl Template {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: text(row, 0, |word| word.parse().ok())?,
            name: row.get(1)?,
            base: row.get(2)?,
            dockerfile: row.get(3)?,
            progress: text(row, 4, Progress::parse)?,
            size_bytes: row.get(5)?,
            config: json(row, 6)?,
            created_at: from_micros(row.get(7)?),
            built_at: row.get::<_, Option<i64>>(8)?.map(from_micros),
            is_deleted: row.get::<_, Option<i64>>(9)?.is_some(),
        })
    }
}

impl Store {
    /// Writes a new template, which waits to be built.
    pub(crate) async fn insert_template(&self, new: Template) -> Result<(), InsertError> {
        self.call(move |connection| {
            let inserted = connection.execute(
                "INSERT INTO templates (id, name, base, dockerfile, status, created_at)
                 VALUES (:id, :name, :base, :dockerfile, :status, :created_at)",
                named_params! {
                    ":id": new.id.as_str(),
                    ":name": new.name,
                    ":base": new.base,
                    ":dockerfile": new.dockerfile,
                    ":status": Progress::Pending.as_str(),
                    ":created_at": to_micros(new.created_at),
                },
            );
            inserted.map(drop).map_err(|error| match error.sqlite_error_code() {
                Some(ErrorCode::ConstraintViolation) => InsertError::NameTaken,
                _ => error.into(),
            })
        })
        .await
    }

    /// The template of this id, or else the living one of this name, or else the one of this
    /// name that was deleted last.
    pub(crate) async fn template(&self, reference: &str) -> Result<Option<Template>, StoreError> {
        let reference = reference.to_owned();
        self.call(move |connection| find(connection, &reference)).await
    }

    /// Living templates, newest first.
    pub(crate) async fn list_templates(
        &self,
        limit: u32,
        offset: u64,
    ) -> Result<TemplatePage, StoreError> {
        self.call(move |connection| {
            let total = connection
                .prepare_cached("SELECT count(*) FROM templates WHERE deleted_at IS NULL")?
                .query_row([], |row| row.get(0))?;
            let sql = format!(
                "SELECT {COLUMNS} FROM templates WHERE deleted_at IS NULL
                 ORDER BY created_at DESC, id DESC LIMIT ?1 OFFSET ?2"
            );
            let offset = i64::try_from(offset).unwrap_or(i64::MAX);
            let rows = connection
                .prepare_cached(&sql)?
                .query_map(params![limit, offset], Template::from_row)?
                .collect::<Result<_, _>>()?;
            Ok(TemplatePage { rows, total })
        })
        .await
    }

    /// Living templates that are this far, oldest first.
    pub(crate) async fn templates_at(
        &self,
        progress: Progress,
    ) -> Result<Vec<Template>, StoreError> {
        self.call(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM templates WHERE status = ?1 AND deleted_at IS NULL
                 ORDER BY created_at, id"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map([progress.as_str()], Template::from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Moves a living template on; `None` when it is not at `from`, and then nothing changed.
    pub(crate) async fn advance_template(
        &self,
        id: &TemplateId,
        from: Progress,
        to: Progress,
    ) -> Result<Option<Template>, StoreError> {
        let id = id.clone();
        self.call(move |connection| {
            let sql = format!(
                "UPDATE templates SET status = ?3
                 WHERE id = ?1 AND status = ?2 AND deleted_at IS NULL RETURNING {COLUMNS}"
            );
            let values = params![id.as_str(), from.as_str(), to.as_str()];
            let mut statement = connection.prepare_cached(&sql)?;
            Ok(statement.query_row(values, Template::from_row).optional()?)
        })
        .await
    }

    /// Notes that a living template is built; `false` when it is not being built any more.
    pub(crate) async fn finish_template(
        &self,
        id: &TemplateId,
        size_bytes: u64,
        config: ImageConfig,
    ) -> Result<bool, StoreError> {
        let id = id.clone();
        self.call(move |connection| {
            let changed = connection.execute(
                "UPDATE templates SET status = :ready, size_bytes = :size, config = :config,
                     built_at = :now
                 WHERE id = :id AND status = :building AND deleted_at IS NULL",
                named_params! {
                    ":ready": Progress::Ready.as_str(),
                    ":building": Progress::Building.as_str(),
                    ":size": i64::try_from(size_bytes).unwrap_or(i64::MAX),
                    ":config": to_json(&config)?,
                    ":now": to_micros(SystemTime::now()),
                    ":id": id.as_str(),
                },
            )?;
            Ok(changed == 1)
        })
        .await
    }

    /// Deletes a living template with its log; `None` when there is none.
    pub(crate) async fn delete_template(
        &self,
        reference: &str,
    ) -> Result<Option<Template>, StoreError> {
        let reference = reference.to_owned();
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            let found = find(&transaction, &reference)?.filter(|it| !it.is_deleted);
            if let Some(template) = &found {
                let id = template.id.as_str();
                transaction.execute(
                    "UPDATE templates SET deleted_at = ?2, dockerfile = '' WHERE id = ?1",
                    params![id, to_micros(SystemTime::now())],
                )?;
                transaction.execute("DELETE FROM template_log WHERE template = ?1", [id])?;
            }
            transaction.commit()?;
            Ok(found)
        })
        .await
    }

    /// Adds lines to the log of a living template.
    pub(crate) async fn add_to_log(
        &self,
        id: &TemplateId,
        lines: Vec<LogLine>,
    ) -> Result<(), StoreError> {
        let id = id.clone();
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            for line in lines {
                transaction
                    .prepare_cached(
                        "INSERT INTO template_log (template, place, at, level, line)
                         SELECT id, ?2, ?3, ?4, ?5 FROM templates
                         WHERE id = ?1 AND deleted_at IS NULL",
                    )?
                    .execute(params![
                        id.as_str(),
                        line.place,
                        to_micros(line.at),
                        line.level,
                        line.line
                    ])?;
            }
            Ok(transaction.commit()?)
        })
        .await
    }

    /// The log behind a place, in order, so many lines at most.
    pub(crate) async fn log_after(
        &self,
        id: &TemplateId,
        place: u64,
        limit: u32,
    ) -> Result<Vec<LogLine>, StoreError> {
        let id = id.clone();
        self.call(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT place, at, level, line FROM template_log
                 WHERE template = ?1 AND place > ?2 ORDER BY place LIMIT ?3",
            )?;
            let rows = statement.query_map(params![id.as_str(), place, limit], |row| {
                Ok(LogLine {
                    place: row.get(0)?,
                    at: from_micros(row.get(1)?),
                    level: row.get(2)?,
                    line: row.get(3)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

fn find(connection: &Connection, reference: &str) -> Result<Option<Template>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM templates WHERE id = ?1 OR name = ?1
         ORDER BY id = ?1 DESC, deleted_at IS NULL DESC, deleted_at DESC LIMIT 1"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row([reference], Template::from_row).optional()?)
}
