//! The page's sections, each from the part of the report that it shows.

use cluegate_eval::metrics::{Histogram, Scan, best};
use cluegate_eval::run::MethodReport;
use cluegate_eval::worst::worst;

use super::Measured;
use super::errors::{ShownError, Thumbnails};
use super::figures::{in_words, matrix, mistakes, rated, spread, swept};
use super::page::{Cell, Entry, Part, Section, Table};
use super::plot::{Estimate, Line, Lines, Mark, heat, intervals, lines};
use crate::cli::eval_words;

/// Rows of a table of groups; the report has all.
const GROUPS: usize = 60;

/// Makes the sections.
pub(super) struct Sections<'a> {
    pub(super) measured: Measured<'a>,
}

impl Sections<'_> {
    /// Those that have something to show.
    pub(super) fn all(&self, errors: usize) -> Vec<Section> {
        let sections = [
            Some(self.methods()),
            self.differences(),
            self.ablations(),
            self.rules(),
            self.confusion(),
            self.scan(),
            self.histograms(),
            self.sweeps(),
            self.pairs(),
            self.groups(),
            Some(self.errors(errors)),
            Some(self.cost()),
            Some(self.card()),
        ];
        sections.into_iter().flatten().collect()
    }

    fn reports(&self) -> &[MethodReport] {
        &self.measured.report.methods
    }

    fn methods(&self) -> Section {
        let mut section = Section::new("methods", "Methods side by side");
        section.text(
            "Every method judged the same pictures. A failure, and an answer that cannot be read, count as wrong. Intervals \
             hold the figure with 95 % (percentile bootstrap over pictures; rows of one pair or picture are drawn together).",
        );
        let estimate = |method: &MethodReport| {
            let rates = &method.measures.image_level;
            let interval = rates.intervals.get("f1").copied();
            Some(Estimate { name: method.method.clone(), value: rates.f1?, interval })
        };
        let estimates: Vec<Estimate> = self.reports().iter().filter_map(estimate).collect();
        if !estimates.is_empty() {
            let svg = intervals("F1 of each method, with its 95 % interval", &estimates, (0.0, 1.0), None);
            section.plot(svg, "F1 at the level of pictures: unsafe or safe.");
        }
        let head =
            ["method", "precision", "recall", "accuracy", "balanced acc.", "F1", "rule F1", "no answer"];
        let mut table = Table::new(
            "At the level of pictures; rule F1 counts a hit only if the right rule is named.",
            &head,
        );
        for method in self.reports() {
            let measures = &method.measures;
            let rule = measures.rule_level.as_ref();
            let figure = |name: &str| rated(&measures.image_level, name);
            let cells = [
                figure("precision"),
                figure("recall"),
                figure("accuracy"),
                figure("balanced_accuracy"),
                figure("f1"),
                rule.map_or_else(|| Cell::text("–"), |rates| rated(rates, "f1")),
                Cell::text(measures.failed + measures.unparseable),
            ];
            table.row(&method.method, cells);
        }
        section.table(table);
        section
    }

    fn differences(&self) -> Option<Section> {
        let differences = &self.measured.report.differences;
        let against = &differences.first()?.against;
        let mut section = Section::new("differences", "Differences");
        section.text(format!(
            "Each method's figures less those of {against} on the same pictures, with intervals of the difference by the \
             paired bootstrap. Bold: the interval does not hold 0."
        ));
        let estimates: Vec<Estimate> = differences
            .iter()
            .filter_map(|entry| {
                let f1 = entry.differences.image_level.get("f1")?;
                Some(Estimate { name: entry.method.clone(), value: f1.value, interval: f1.interval })
            })
            .collect();
        let reach = estimates
            .iter()
            .flat_map(|estimate| estimate.interval.unwrap_or([estimate.value; 2]))
            .map(f64::abs)
            .fold(0.05, f64::max);
        let title = format!("Difference in F1 to {against}, with its 95 % interval");
        section.plot(
            intervals(&title, &estimates, (-reach * 1.05, reach * 1.05), Some(0.0)),
            format!("Difference in F1 at the level of pictures. Left of the line: below {against}."),
        );
        let head = ["method", "precision", "recall", "accuracy", "F1", "rule F1"];
        let mut table = Table::new(format!("Less {against}"), &head);
        for entry in differences {
            let image = |name: &str| Cell::signed(entry.differences.image_level.get(name));
            let rule = Cell::signed(entry.differences.rule_level.get("f1"));
            let cells = [image("precision"), image("recall"), image("accuracy"), image("f1"), rule];
            table.row(&entry.method, cells);
        }
        section.table(table);
        Some(section)
    }

    fn ablations(&self) -> Option<Section> {
        let ablations = &self.measured.report.ablations;
        if ablations.is_empty() {
            return None;
        }
        let mut section = Section::new("ablations", "What each part is worth");
        section.text(
            "CLUE without one of its parts, less the whole method, beside what the paper reports (CLUE, Tables 5 to 7, other \
             models and another set: the direction is to be compared, not the size).",
        );
        let head = ["left out", "figure", "here", "in the paper", "passes", "cascades", "direction"];
        let mut table = Table::new("Left out, and what becomes of the figure that the paper gives", &head);
        for entry in ablations {
            let measures = self
                .reports()
                .iter()
                .find(|method| method.method == entry.method)
                .map(|method| &method.measures);
            let paper = entry.paper.map_or_else(
                || Cell::words("no figure for it alone"),
                |paper| {
                    let words = format!("{:.3} to {:.3} ({})", paper.with, paper.without, paper.what);
                    Cell::words(words)
                },
            );
            let mean =
                |value: Option<f64>| Cell::text(value.map_or_else(|| "–".to_owned(), |v| format!("{v:.2}")));
            let cells = [
                Cell::text(entry.paper.map_or("F1", |paper| in_words(paper.figure))),
                Cell::signed(entry.ours.as_ref()),
                paper,
                mean(measures.and_then(|measures| measures.passes)),
                mean(measures.and_then(|measures| measures.cascades)),
                Cell::words(entry.agreement.map_or("–", eval_words)),
            ];
            table.row(&entry.method, cells);
        }
        section.table(table);
        Some(section)
    }

    fn rules(&self) -> Option<Section> {
        let mut section = Section::new("rules", "Rule by rule");
        section.text("A hit counts only if the right rule is named.");
        let mut open = true;
        for method in self.reports().iter().filter(|method| !method.measures.by_rule.is_empty()) {
            let head = ["rule", "violated", "precision", "recall", "accuracy", "F1"];
            let mut table = Table::new(format!("{}: each rule over all pictures", method.method), &head);
            for (rule, rates) in &method.measures.by_rule {
                let counts = &rates.counts;
                let cells = [
                    Cell::text(counts.true_positives + counts.false_negatives),
                    rated(rates, "precision"),
                    rated(rates, "recall"),
                    rated(rates, "accuracy"),
                    rated(rates, "f1"),
                ];
                table.row(rule, cells);
            }
            section.folded(&method.method, open, |section| section.table(table));
            open = false;
        }
        (!open).then_some(section)
    }

    fn confusion(&self) -> Option<Section> {
        let mut section = Section::new("confusion", "Which rules are taken for which");
        section.text(
            "A row is a rule that pictures violate, a column the rule that is named; “none” is for none. On the diagonal: \
             found, and for “none” safe pictures that are called safe. Beside it, a picture counts for every pair of a \
             missed and a wrongly named rule. Colour: the share of the row.",
        );
        let mut open = true;
        let named = self.reports().iter().filter(|method| !method.measures.by_rule.is_empty());
        for method in
            named.filter(|method| !method.measures.mistaken_rules.is_empty() || method.method == "clue")
        {
            let title = format!("{}: violated rules by named rules", method.method);
            let (names, counts) = matrix(method);
            let svg = heat(&title, (&names, &names), &counts);
            section.folded(&method.method, open, |section| {
                section.plot(svg, title);
                if !method.measures.mistaken_rules.is_empty() {
                    section.table(mistakes(method));
                }
            });
            open = false;
        }
        (!open).then_some(section)
    }

    fn scan(&self) -> Option<Section> {
        let scans: Vec<(&str, &Scan)> = self
            .reports()
            .iter()
            .filter_map(|method| Some((method.method.as_str(), method.measures.scan.as_ref()?)))
            .collect();
        // The ablations scan as the whole method does.
        let mut different: Vec<(&str, &Scan)> = Vec::new();
        for (name, scan) in scans {
            if different.iter().all(|(_, other)| *other != scan) {
                different.push((name, scan));
            }
        }
        let (_, first) = different.first()?;
        let mut section = Section::new("scan", "Relevance scan");
        section.text(
            "Recall kept against rules filtered, as the threshold of the cosine moves (CLUE, Figure 7). The paper keeps \
             96.6 % of violated rules while it filters 67 %.",
        );
        let line = |(name, scan): &(&str, &Scan)| Line {
            name: (*name).to_owned(),
            points: scan.curve.iter().map(|point| (point.filtered, point.kept)).collect(),
        };
        let here = first.recall.map(|recall| Mark { name: "here".to_owned(), at: (first.filtered, recall) });
        let paper = Mark { name: "the paper".to_owned(), at: (0.67, 0.966) };
        let plot = Lines {
            title: "Share of violated rules kept against the share of all rules filtered".to_owned(),
            x_label: "share of all rules filtered".to_owned(),
            y_label: "share of violated rules kept".to_owned(),
            x: (0.0, 1.0),
            lines: different.iter().map(line).collect(),
            marks: here.into_iter().chain([paper]).collect(),
        };
        section.plot(lines(&plot), "Circles: the threshold that was used here, and the paper's.");
        let mut table =
            Table::new("At the threshold that was used", &["method", "violated kept", "all filtered"]);
        for (name, scan) in &different {
            let percent = |share: f64| Cell::text(format!("{:.1} %", 100.0 * share));
            let recall = scan.recall.map_or_else(|| Cell::text("–"), percent);
            table.row(name, [recall, percent(scan.filtered)]);
        }
        section.table(table);
        Some(section)
    }

    fn histograms(&self) -> Option<Section> {
        let mut section = Section::new("scores", "How scores are spread");
        section.text(
            "Each chain's score where its rule is violated (upwards) and where it is not (downwards), each as shares of its \
             own; without debiasing and with it (CLUE, Figure 6). A chain is as strong as its weakest precondition. Debiased: \
             M(x, c) less M(None, c), as a share of what M(None, c) leaves in that direction, so that the thresholds \
             of every statement stand at the same place.",
        );
        let mut seen: Vec<&Histogram> = Vec::new();
        for method in self.reports() {
            let all: Vec<&Histogram> =
                method.measures.histograms.iter().filter(|histogram| !seen.contains(histogram)).collect();
            if all.is_empty() {
                continue;
            }
            section.folded(&method.method, seen.is_empty(), |section| {
                for histogram in &all {
                    spread(section, &method.method, histogram);
                }
            });
            seen.extend(all);
        }
        (!seen.is_empty()).then_some(section)
    }

    fn sweeps(&self) -> Option<Section> {
        let mut section = Section::new("sweeps", "Thresholds");
        for (name, points) in swept(self.reports()) {
            let (low, high) = (points[0].0, points[points.len() - 1].0);
            let line = |title: &str, figure: &str| Line {
                name: title.to_owned(),
                points: points
                    .iter()
                    .filter_map(|(value, method)| Some((*value, method.measures.image_level.figure(figure)?)))
                    .collect(),
            };
            let plot = Lines {
                title: format!("CLUE by the threshold {name}"),
                x_label: name.clone(),
                y_label: "figure".to_owned(),
                x: (low, high),
                lines: vec![line("F1", "f1"), line("recall", "recall"), line("precision", "precision")],
                marks: Vec::new(),
            };
            section.plot(lines(&plot), format!("CLUE with other values of {name}, each judged anew."));
        }
        for method in self.reports().iter().filter(|method| method.measures.score_curve.len() > 1) {
            let curve = &method.measures.score_curve;
            let line = |title: &str, figure: fn(&cluegate_eval::metrics::CurvePoint) -> f64| Line {
                name: title.to_owned(),
                points: curve.iter().map(|point| (point.threshold, figure(point))).collect(),
            };
            let plot = Lines {
                title: format!("{} by the threshold of its score", method.method),
                x_label: "threshold of the score".to_owned(),
                y_label: "figure".to_owned(),
                x: (0.0, 1.0),
                lines: vec![
                    line("F1", |point| point.f1()),
                    line("recall", |point| point.kept),
                    line("precision", |point| point.precision),
                ],
                marks: best(curve)
                    .map(|point| Mark { name: "highest F1".to_owned(), at: (point.threshold, point.f1()) })
                    .into_iter()
                    .collect(),
            };
            let caption = "Whatever scores as high or higher is called unsafe. The highest F1 is what a threshold fitted to \
                           these labels would reach; the table above has what the method does without any.";
            section.folded(&method.method, false, |section| section.plot(lines(&plot), caption));
        }
        (!section.parts.is_empty()).then_some(section)
    }

    fn pairs(&self) -> Option<Section> {
        let mut section = Section::new("pairs", "Pairs");
        section.text("Pairs of the same picture with and without what makes it unsafe; right if both are judged right.");
        let mut table = Table::new("Pair accuracy", &["method", "pairs", "accuracy"]);
        let mut policies = Table::new("Pair accuracy by policy or level", &["method", "by policy or level"]);
        for method in self.reports() {
            let Some(pairs) = &method.measures.pairs else { continue };
            let cells = [Cell::text(pairs.pairs), Cell::figure(pairs.accuracy, pairs.interval.as_ref())];
            table.row(&method.method, cells);
            let by_policy = pairs.by_policy.iter().map(|(name, value)| format!("{name} {value:.3}"));
            let by_level = pairs.by_level.iter().map(|(name, value)| format!("{name} {value:.3}"));
            let each: Vec<String> = by_policy.chain(by_level).collect();
            if !each.is_empty() {
                policies.row(&method.method, [Cell::words(each.join(", "))]);
            }
        }
        if table.is_empty() {
            return None;
        }
        section.table(table);
        if !policies.is_empty() {
            section.table(policies);
        }
        Some(section)
    }

    fn groups(&self) -> Option<Section> {
        let mut section = Section::new("groups", "By category, source and level");
        for method in self.reports() {
            let Some(first) = method.measures.groupings.first() else { continue };
            section.folded(&method.method, false, |section| {
                for grouping in &method.measures.groupings {
                    let mean = |value: Option<f64>| {
                        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"))
                    };
                    let caption = format!(
                        "{}, by {}: F1 macro {}, pooled {}, with accuracy where nothing is unsafe {}",
                        method.method,
                        grouping.by,
                        mean(grouping.macro_f1),
                        mean(grouping.pooled_f1),
                        mean(grouping.macro_f1_or_accuracy)
                    );
                    let mut table =
                        Table::new(caption, &["group", "rows", "recall", "precision", "accuracy", "F1"]);
                    for group in grouping.groups.iter().take(GROUPS) {
                        let rates = &group.rates;
                        let cells = [
                            Cell::text(rates.counts.total()),
                            rated(rates, "recall"),
                            rated(rates, "precision"),
                            rated(rates, "accuracy"),
                            rated(rates, "f1"),
                        ];
                        table.row(&group.name, cells);
                    }
                    section.table(table);
                    let hidden = grouping.groups.len().saturating_sub(GROUPS);
                    if hidden > 0 {
                        section.text(format!("And {hidden} more groups, which report.json has."));
                    }
                }
            });
            let _ = first;
        }
        (!section.parts.is_empty()).then_some(section)
    }

    fn errors(&self, limit: usize) -> Section {
        let mut section = Section::new("errors", "The worst errors");
        section.text(
            "Wrong verdicts first, then by how far the scores are from the right answer. How to read a bar: the dark mark is \
             the score with the picture, the thin grey one without it (the model's prior). Left of the first colour change \
             the statement is rejected, right of the second it holds; in between the region comparison and then the \
             reasoning decide.",
        );
        if let Some(reason) = self.measured.without {
            section.text(format!("The pictures are not shown: {reason}"));
        }
        let kept = self.measured.kept;
        let mut thumbnails = Thumbnails::new(self.measured.set);
        for (at, method) in kept.record.methods.iter().enumerate() {
            let judged = kept.judged(method);
            let limit = if at == 0 { limit } else { limit / 4 };
            let wrong = worst(&judged, &kept.record.rules, usize::MAX);
            let show = |wrong: &_| -> ShownError {
                let wrong: &cluegate_eval::worst::WrongAnswer = wrong;
                let (row, judged) = (&kept.rows[wrong.at], &judged[wrong.at]);
                ShownError::new(wrong, row, judged, &kept.record.constitution, &mut thumbnails)
            };
            let errors: Vec<ShownError> = wrong.iter().take(limit).map(show).collect();
            let title = format!(
                "{}: {} of {} pictures, {} shown",
                method.name,
                wrong.len(),
                judged.len(),
                errors.len()
            );
            section.folded(&title, at == 0, |section| section.parts.push(Part::Errors { errors }));
            let failures = &method.failures;
            if let Some(first) = failures.first() {
                section.text(format!(
                    "{} failed on {} picture(s); the first: {first}",
                    method.name,
                    failures.len()
                ));
            }
        }
        section
    }

    fn cost(&self) -> Section {
        let mut section = Section::new("cost", "Cost a picture");
        section.text(
            "Forward passes and reasoning cascades are the same whenever the run is counted. Times are not, and are kept \
             apart from all other figures.",
        );
        let head = ["method", "passes", "cascades", "timed", "mean ms", "median", "p95", "longest"];
        let mut table = Table::new(
            "A forward pass: one picture embedded or searched, one question scored, or one token decoded",
            &head,
        );
        for method in self.reports() {
            let cost = self.measured.costs.of(&method.method, &method.revision);
            let mean =
                |value: Option<f64>| Cell::text(value.map_or_else(|| "–".to_owned(), |v| format!("{v:.2}")));
            let ms = |value: fn(&cluegate_eval::costs::Cost) -> f64| {
                let value = cost.as_ref().map(value);
                Cell::text(value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}")))
            };
            let cells = [
                mean(method.measures.passes),
                mean(method.measures.cascades),
                Cell::text(cost.map_or(0, |cost| cost.answers)),
                ms(|cost| cost.mean),
                ms(|cost| cost.median),
                ms(|cost| cost.p95),
                ms(|cost| cost.longest),
            ];
            table.row(&method.method, cells);
        }
        section.table(table);
        for run in &self.measured.costs.runs {
            section.text(format!("Measured from {} on {}.", run.started, run.machine));
        }
        section
    }

    fn card(&self) -> Section {
        let mut section = Section::new("card", "What was measured");
        let record = &self.measured.kept.record;
        let rows = &self.measured.kept.rows;
        let is_unsafe = rows.iter().filter(|row| row.row.truth.is_unsafe()).count();
        let bootstrap = &record.bootstrap;
        let mut entries = vec![
            Entry::new("data set", &record.data.name),
            Entry::new("opened as", &record.data.set),
            Entry::new("rows", format!("{} looked at of {}", record.data.looked_at, record.data.rows)),
            Entry::new("labels", format!("{is_unsafe} unsafe, {} safe", rows.len() - is_unsafe)),
            Entry::code("revision of the labels", &record.data.revision),
        ];
        if let Some(scenes) = &record.data.scenes {
            let words = format!("seed {}, {} a rule, style {}", scenes.seed, scenes.per_rule, scenes.style);
            entries.push(Entry::new("scenes", words));
        }
        entries.extend([
            Entry::new("constitution", &record.constitution.name),
            Entry::code("its revision", &record.constitution.revision),
            Entry::code("judge", &record.models.judge),
            Entry::code("relevance encoder", &record.models.relevance),
            Entry::code("detector", &record.models.detector),
            Entry::new("intervals", format!("{} resamples, seed {}", bootstrap.resamples, bootstrap.seed)),
            Entry::new("program", format!("cluegate {}", record.version)),
            Entry::code("command", record.command.join(" ")),
        ]);
        section.parts.push(Part::Card { entries });
        let mut table = Table::new("Revisions of the methods", &["method", "revision"]);
        for method in &record.methods {
            table.row(&method.name, [Cell::words(&method.revision)]);
        }
        section.table(table);
        let mut table = Table::new("The rules", &["rule", "words"]);
        for (id, words) in &record.constitution.rules {
            table.row(id, [Cell::words(words)]);
        }
        section.folded("The rules", false, |section| section.table(table));
        section
    }
}
