//! Starting every container that is to be started with the host: those that others need first, a bounded number at once.
//!
//! ```text
//! configured containers -> Graph (pure: who waits for whom, who cannot start and why) -> a few threads -> one row each
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::sync::{Condvar, Mutex, PoisonError};

use runtime::HostPaths;
use schemars::JsonSchema;
use serde::Serialize;

use crate::configured;
use crate::ops::Result;
use crate::service::{self, StartRequest, Started};
use crate::settings::Settings;

/// What became of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What.
    pub result: Outcome,
    /// The unit or the log, or why it was not started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is ready.
    Started,
    /// It was running before.
    AlreadyRunning,
    /// It could not be started.
    Failed,
    /// What it requires could not be started.
    Skipped,
}

/// What autostart must know of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Whether it starts with the host.
    pub auto_start: bool,
    /// What must be ready before.
    pub requires: Vec<String>,
    /// Its configuration cannot be read: it is started by nobody, and what requires it neither.
    pub broken: Option<String>,
}

/// Starts all that are to be started with the host, and what they require, `jobs` at once. Every one is tried, whatever
/// becomes of the others; the rows are sorted by name.
///
/// # Errors
/// When the configured containers cannot be listed.
pub fn autostart(jobs: usize, interrupt: Option<BorrowedFd<'_>>, paths: &HostPaths) -> Result<Vec<Row>> {
    let mut wishes = BTreeMap::new();
    for container in configured::list(paths)? {
        let wish = match Settings::read(&container.name, paths) {
            Ok(settings) => Wish {
                auto_start: settings.document.auto_start == Some(true),
                requires: settings
                    .document
                    .requires
                    .unwrap_or_default()
                    .into_iter()
                    .map(|name| name.0)
                    .collect(),
                broken: None,
            },
            // What it wants is not known: the safe guess is that it is wanted.
            Err(error) => Wish { auto_start: true, broken: Some(error.to_string()), ..Wish::default() },
        };
        wishes.insert(container.name, wish);
    }
    let queue = Queue { state: Mutex::new(Graph::new(&wishes)), changed: Condvar::new() };
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(name) = queue.next() {
                    let request = StartRequest { interrupt, ..StartRequest::new(&name) };
                    let row = match service::start(&request, paths) {
                        Ok(started) => row(&name, started),
                        Err(error) => failed(&name, error.to_string()),
                    };
                    queue.done(row);
                }
            });
        }
    });
    let graph = queue.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(graph.rows.into_values().collect())
}

fn row(name: &str, started: Started) -> Row {
    let (result, detail) = match started {
        Started::Already => (Outcome::AlreadyRunning, None),
        Started::Unit(unit) => (Outcome::Started, Some(unit)),
        Started::Own(log) => (Outcome::Started, Some(log.display().to_string())),
    };
    Row { name: name.to_owned(), result, detail }
}

fn failed(name: &str, why: String) -> Row {
    Row { name: name.to_owned(), result: Outcome::Failed, detail: Some(why) }
}

/// What is to be done, shared by the threads that do it.
struct Queue {
    state: Mutex<Graph>,
    changed: Condvar,
}

impl Queue {
    /// The next container to start; waits while what could be next depends on what is being started.
    fn next(&self) -> Option<String> {
        let mut graph = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(name) = graph.next() {
                return Some(name);
            }
            if graph.waiting.is_empty() {
                return None;
            }
            graph = self.changed.wait(graph).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, row: Row) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).done(row);
        self.changed.notify_all();
    }
}

/// Who waits for whom.
#[derive(Debug, Default)]
struct Graph {
    /// Not begun: what each still waits for.
    waiting: BTreeMap<String, BTreeSet<String>>,
    rows: BTreeMap<String, Row>,
}

impl Graph {
    fn new(all: &BTreeMap<String, Wish>) -> Graph {
        let mut graph = Graph::default();
        let mut wanted: Vec<&str> =
            all.iter().filter(|(_, wish)| wish.auto_start).map(|(name, _)| name.as_str()).collect();
        while let Some(name) = wanted.pop() {
            if graph.waiting.contains_key(name) || graph.rows.contains_key(name) {
                continue;
            }
            let Some(wish) = all.get(name) else { continue };
            if let Some(why) = &wish.broken {
                graph.rows.insert(name.to_owned(), failed(name, why.clone()));
                continue;
            }
            if let Some(unknown) = wish.requires.iter().find(|required| !all.contains_key(*required)) {
                let known = all.keys().map(String::as_str);
                let nearest = runtime::nearest::nearest(unknown, known);
                let advice = nearest.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
                let why = format!("it requires {unknown:?}, and there is no container of that name{advice}");
                graph.rows.insert(name.to_owned(), failed(name, why));
                continue;
            }
            graph.waiting.insert(name.to_owned(), wish.requires.iter().cloned().collect());
            wanted.extend(wish.requires.iter().map(String::as_str));
        }
        for cycle in cycles(&graph.waiting) {
            let way = cycle.iter().chain(cycle.first()).cloned().collect::<Vec<_>>().join(" -> ");
            for name in &cycle {
                graph.waiting.remove(name);
                graph.rows.insert(name.clone(), failed(name, format!("it requires itself: {way}")));
            }
        }
        let known: Vec<String> = graph.rows.keys().cloned().collect();
        known.iter().for_each(|name| graph.skip_dependents(name));
        graph
    }

    /// A container that waits for nothing.
    fn next(&mut self) -> Option<String> {
        let name = self.waiting.iter().find(|(_, left)| left.is_empty()).map(|(name, _)| name.clone())?;
        self.waiting.remove(&name);
        Some(name)
    }

    fn done(&mut self, row: Row) {
        let name = row.name.clone();
        let good = matches!(row.result, Outcome::Started | Outcome::AlreadyRunning);
        self.rows.insert(name.clone(), row);
        if good {
            for left in self.waiting.values_mut() {
                left.remove(&name);
            }
        } else {
            self.skip_dependents(&name);
        }
    }

    fn skip_dependents(&mut self, failed: &str) {
        let mut failed = vec![failed.to_owned()];
        while let Some(name) = failed.pop() {
            let dependents: Vec<String> = self
                .waiting
                .iter()
                .filter(|(_, left)| left.contains(&name))
                .map(|(dependent, _)| dependent.clone())
                .collect();
            for dependent in dependents {
                self.waiting.remove(&dependent);
                let detail = Some(format!("it requires {name}, which was not started"));
                let row = Row { name: dependent.clone(), result: Outcome::Skipped, detail };
                self.rows.insert(dependent.clone(), row);
                failed.push(dependent);
            }
        }
    }
}

/// Every container that requires itself, by way of others or not: one way round for each group.
fn cycles(requires: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for start in requires.keys() {
        if found.iter().any(|cycle| cycle.contains(start)) {
            continue;
        }
        found.extend(way_back(start, requires));
    }
    found
}

/// A shortest way from a container over what it requires back to itself.
fn way_back(start: &str, requires: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut next = std::collections::VecDeque::from([start]);
    while let Some(name) = next.pop_front() {
        for required in requires.get(name).into_iter().flatten() {
            if required == start {
                let mut way = vec![name.to_owned()];
                let mut at = name;
                while at != start {
                    at = came_from.get(at)?;
                    way.push(at.to_owned());
                }
                way.reverse();
                return Some(way);
            }
            if !came_from.contains_key(required.as_str()) {
                came_from.insert(required, name);
                next.push_back(required);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(wishes: &[(&str, bool, &[&str])]) -> Graph {
        let wish = |auto_start: bool, requires: &[&str]| Wish {
            auto_start,
            requires: requires.iter().map(|name| (*name).to_owned()).collect(),
            broken: None,
        };
        Graph::new(
            &wishes
                .iter()
                .map(|(name, auto, requires)| ((*name).to_owned(), wish(*auto, requires)))
                .collect(),
        )
    }

    fn started(graph: &mut Graph, name: &str) {
        graph.done(Row { name: name.to_owned(), result: Outcome::Started, detail: None });
    }

    fn why(graph: &Graph, name: &str) -> (Outcome, String) {
        let row = &graph.rows[name];
        (row.result, row.detail.clone().unwrap_or_default())
    }

    #[test]
    fn what_others_need_comes_first_wanted_by_itself_or_not() {
        let mut graph = graph(&[
            ("web", true, &["db", "cache"]),
            ("db", true, &["disk"]),
            ("cache", false, &[]),
            ("disk", false, &[]),
            ("idle", false, &[]),
        ]);
        assert_eq!(
            (graph.next().as_deref(), graph.next().as_deref(), graph.next()),
            (Some("cache"), Some("disk"), None)
        );
        started(&mut graph, "disk");
        assert_eq!((graph.next().as_deref(), graph.next()), (Some("db"), None));
        started(&mut graph, "cache");
        assert_eq!(graph.next(), None);
        started(&mut graph, "db");
        assert_eq!(graph.next().as_deref(), Some("web"));
        assert!(graph.waiting.is_empty() && !graph.rows.contains_key("idle"));
    }

    #[test]
    fn a_failed_requirement_skips_its_dependents_and_theirs() {
        let mut graph =
            graph(&[("a", true, &["b"]), ("b", true, &["c"]), ("c", true, &[]), ("d", true, &[])]);
        assert_eq!(graph.next().as_deref(), Some("c"));
        graph.done(failed("c", "no".to_owned()));
        assert_eq!(why(&graph, "b"), (Outcome::Skipped, "it requires c, which was not started".to_owned()));
        assert_eq!(why(&graph, "a"), (Outcome::Skipped, "it requires b, which was not started".to_owned()));
        assert_eq!(graph.next().as_deref(), Some("d"));
    }

    #[test]
    fn cycles_and_unknown_names_are_named_and_the_rest_starts() {
        let mut graph = graph(&[
            ("a", true, &["b"]),
            ("b", false, &["c"]),
            ("c", false, &["a"]),
            ("self", true, &["self"]),
            ("on-a", true, &["a"]),
            ("typo", true, &["datbase"]),
            ("database", true, &[]),
        ]);
        let (result, detail) = why(&graph, "b");
        assert_eq!((result, detail.as_str()), (Outcome::Failed, "it requires itself: a -> b -> c -> a"));
        assert_eq!(why(&graph, "self").1, "it requires itself: self -> self");
        assert_eq!(why(&graph, "on-a").0, Outcome::Skipped);
        let (result, detail) = why(&graph, "typo");
        assert!(result == Outcome::Failed && detail.ends_with("did you mean \"database\"?"), "{detail}");
        assert_eq!((graph.next().as_deref(), graph.next()), (Some("database"), None));
    }
}
