//! The report: one page with everything in it, for any browser, without a network.
//!
//! Invariants: nothing is loaded from anywhere; light and dark follow the reader's own choice; it is readable at the
//! width of a phone; a plot without data says so instead of showing an empty frame.

use std::fmt::Write;

use lastgasp_hal_sim::campaign::Profile;
use lastgasp_hal_sim::node::sums::Under;
use lastgasp_hal_sim::powercut::{self, Request, Verdict};

use super::Run;
use super::plot::{Decades, Row, cloud, columns, escaped, histogram, shares};
use super::summary::{CAUSES, HEADINGS, cells, grouped, millis, time, verdict_of};

const STYLE: &str = include_str!("report.css");

/// So many stories are told, of so many lines each.
const STORIES: usize = 4;
const STORY_LINES: usize = 120;

/// Longest line of a story that is shown in full, in characters.
const STORY_COLUMNS: usize = 600;

/// The whole page.
pub(super) fn page(run: &Run, request: &Request) -> String {
    let mut out = String::new();
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>lastgasp powercut: {} cuts</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        grouped(run.cuts()),
    )
    .ok();
    head(run, request, &mut out);
    table(run, &mut out);
    out += "<h2>What survived</h2>\n";
    survival(run, &mut out);
    out += "<h2>Where the power failed, and what came of it</h2>\n";
    positions(run, &mut out);
    out += "<h2>What RAM held</h2>\n";
    ram(run, &mut out);
    out += "<h2>Recovery</h2>\n";
    recovery(run, &mut out);
    out += "<h2>The last gasp against the hold-up</h2>\n";
    flushes(run, &mut out);
    out += "<h2>Wear</h2>\n";
    wear(run, &mut out);
    losses(run, &mut out);
    stories(run, request, &mut out);
    write!(
        out,
        "<footer>lastgasp {} &middot; seeds from {} &middot; {} threads &middot; {:.1} s</footer>\n\
         </main>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION"),
        request.seed,
        run.jobs,
        run.took.as_secs_f64(),
    )
    .ok();
    out
}

fn head(run: &Run, request: &Request, out: &mut String) {
    let broken = run.broken();
    let honest: Vec<&Verdict> = run.verdicts.iter().filter(|v| run.counts(v.profile)).collect();
    let acknowledged: u64 = honest.iter().map(|v| v.acknowledged()).sum();
    let lost: u64 = honest.iter().map(|v| v.acknowledged_lost()).sum();
    let days: u64 = run.verdicts.iter().map(|v| v.sums.lived_us).sum::<u64>() / 86_400_000_000;
    let words = if honest.is_empty() {
        "Only a card that lies was looked at"
    } else if broken == 0 {
        "Every promise was kept"
    } else {
        "A promise was broken"
    };
    let class = if broken == 0 { "good" } else { "bad" };
    writeln!(out, "<h1>lastgasp powercut</h1>\n<p class=\"verdict {class}\">{words}</p>\n<div class=\"tiles\">").ok();
    for (number, what) in [
        (grouped(run.cuts()), "power cuts"),
        (grouped(acknowledged), "records acknowledged on media that honour sync"),
        (grouped(lost), "of them lost without a cause outside"),
        (grouped(days), "days of node life"),
    ] {
        writeln!(out, "<div><b>{number}</b><span>{what}</span></div>").ok();
    }
    let hold_up = time(millis(request.script.hold_up_us));
    let about = match request.script.sense {
        lastgasp_hal_sim::supply::Sense::Right => String::new(),
        sense => format!(", with a sense that is wrong ({sense:?})"),
    };
    writeln!(out, "</div>\n<p>The nodes had a reserve of {hold_up}{}.</p>", escaped(&about)).ok();
}

fn table(run: &Run, out: &mut String) {
    *out += "<div class=\"wide\"><table>\n<tr>";
    HEADINGS.iter().for_each(|heading| _ = write!(out, "<th>{heading}</th>"));
    *out += "</tr>\n";
    for verdict in &run.verdicts {
        *out += "<tr>";
        cells(verdict).iter().for_each(|cell| _ = write!(out, "<td>{}</td>", escaped(cell)));
        *out += "</tr>\n";
    }
    *out += "</table></div>\n<ul class=\"verdicts\">\n";
    for verdict in &run.verdicts {
        let (good, text) = verdict_of(run, verdict);
        let class = if !good {
            "bad"
        } else if verdict.profile.is_honest() {
            "good"
        } else {
            "dim"
        };
        let name = verdict.profile.name();
        writeln!(out, "<li><b class=\"{class}\">{name}</b> {}</li>", escaped(&text)).ok();
    }
    *out += "</ul>\n";
}

fn figure(out: &mut String, title: &str, picture: &str, caption: &str) {
    writeln!(out, "<figure>\n<h3>{}</h3>\n{picture}", escaped(title)).ok();
    if !caption.is_empty() {
        writeln!(out, "<figcaption>{}</figcaption>", escaped(caption)).ok();
    }
    *out += "</figure>\n";
}

/// One picture for each medium that has data.
fn each(run: &Run, out: &mut String, nothing: &str, draw: impl Fn(&Verdict) -> Option<(String, String)>) {
    let drawn: Vec<_> = run.verdicts.iter().filter_map(|v| Some((v.profile.name(), draw(v)?))).collect();
    if drawn.is_empty() {
        writeln!(out, "<p class=\"dim\">{nothing}</p>").ok();
        return;
    }
    *out += "<div class=\"grid\">\n";
    drawn.iter().for_each(|(name, (picture, caption))| figure(out, name, picture, caption));
    *out += "</div>\n";
}

fn legend(out: &mut String, parts: &[(&str, &str)]) {
    *out += "<p class=\"legend\">";
    parts.iter().for_each(|(class, words)| _ = write!(out, "<span><i class=\"{class}\"></i>{words}</span> "));
    *out += "</p>\n";
}

fn float(number: u64) -> f64 {
    #[expect(clippy::cast_precision_loss)]
    let number = number as f64;
    number
}

fn survival(run: &Run, out: &mut String) {
    let row = |verdict: &Verdict| {
        let hit = verdict.sums.acknowledged_hit;
        let lost = verdict.acknowledged_lost();
        let kept = verdict.acknowledged().saturating_sub(hit + lost);
        let share = float(kept) / float(verdict.acknowledged()).max(1.0);
        // Rounded down: what is not all may not look like it.
        let shown = (share * 10_000.0).floor() / 100.0;
        let end = if hit + lost == 0 { "all".to_owned() } else { format!("{shown:.2} %") };
        let part = |class, count, what: &str| (class, float(count), format!("{} {what}", grouped(count)));
        let parts = vec![
            part("ok", kept, "survived"),
            part("hit", hit, "destroyed by the card beside a write in flight"),
            part("lost", lost, "lost"),
        ];
        Row { name: verdict.profile.name().to_owned(), parts, end }
    };
    legend(out, &[("ok", "survived"), ("hit", "destroyed by the card, and reported"), ("lost", "lost")]);
    let rows: Vec<Row> = run.verdicts.iter().map(row).collect();
    *out += "<div class=\"grid\">\n";
    figure(out, "Acknowledged records", &shares(&rows, "Share of acknowledged records that survived"), "");
    *out += "</div>\n";
}

fn positions(run: &Run, out: &mut String) {
    legend(
        out,
        &[
            ("ok", "nothing was lost"),
            ("ram", "only what was not acknowledged"),
            ("hit", "acknowledged records, hit beside the write"),
            ("lost", "acknowledged records"),
        ],
    );
    each(run, out, "No node lived in this run: --random lets some.", |verdict| {
        let is_bad = if run.counts(verdict.profile) && verdict.profile == Profile::SdCard { "hit" } else { "lost" };
        let row = |under: Under| {
            let points = verdict.sums.points.iter().filter(|point| point.under == under);
            let (mut ok, mut ram, mut bad) = (0, 0, 0);
            for point in points {
                match (point.unacknowledged_lost, point.acknowledged_lost) {
                    (_, 1..) => bad += 1,
                    (1.., _) => ram += 1,
                    _ => ok += 1,
                }
            }
            let part = |class, count: u64| (class, float(count), format!("{count} cuts"));
            let parts = vec![part("ok", ok), part("ram", ram), part(is_bad, bad)];
            Row { name: under.name().to_owned(), parts, end: format!("{} cuts", grouped(ok + ram + bad)) }
        };
        let rows: Vec<Row> =
            Under::ALL.into_iter().map(row).filter(|row| row.parts.iter().any(|p| p.1 > 0.0)).collect();
        (!rows.is_empty()).then(|| (shares(&rows, "What was under way at the cut, and what it cost"), String::new()))
    });
}

fn ram(run: &Run, out: &mut String) {
    *out += "<p>Each point is a cut: the time since the last commit, and the records that only RAM held. Those of \
             class <code>interval</code> wait up to 2 s, those of class <code>ram</code> up to 30 s.</p>\n";
    each(run, out, "No cut of this run cost a record.", |verdict| {
        let points: Vec<(f64, f64, &str)> = verdict
            .sums
            .points
            .iter()
            .filter(|point| point.unacknowledged_lost > 0)
            .map(|p| (millis(p.since_durable_us).max(0.1), f64::from(p.unacknowledged_lost), "ram"))
            .collect();
        if points.is_empty() {
            return None;
        }
        let x = Decades::around(points.iter().map(|p| p.0), short_time);
        let y = Decades::around(points.iter().map(|p| p.1).chain([1.0, 9.0]), |records| format!("{records:.0} rec"));
        let caption = format!("{} of {} cuts cost something", points.len(), verdict.sums.points.len());
        Some((cloud(&points, &x, &y, false, "Records lost from RAM by the time since the last commit"), caption))
    });
}

fn short_time(ms: f64) -> String {
    match ms {
        _ if ms >= 3_600_000.0 => format!("{:.0} h", ms / 3_600_000.0),
        _ if ms >= 1000.0 => format!("{:.0} s", ms / 1000.0),
        _ if ms >= 1.0 => format!("{ms:.0} ms"),
        _ => format!("{ms} ms"),
    }
}

fn recovery(run: &Run, out: &mut String) {
    each(run, out, "No node lived in this run: --random lets some.", |verdict| {
        let values: Vec<f64> = verdict.sums.recovery_us.iter().map(|us| f64::from(*us) / 1000.0).collect();
        let x = Decades::around(values.iter().copied(), short_time);
        let of = |percent| verdict.sums.recovery_ms(percent).map_or_else(String::new, time);
        let caption = format!("half in {}, 99 of 100 in {}, worst {}", of(50), of(99), of(100));
        (!values.is_empty()).then(|| (histogram(&values, &x, "ok", "Mounts by the time that they took"), caption))
    });
}

fn flushes(run: &Run, out: &mut String) {
    *out += "<p>Each point is a power failure: how long the reserve lasted from then on, and how long it took until \
             everything was durable. Above the line the reserve was too short.</p>\n";
    each(run, out, "No supply of this run warned of a power failure.", |verdict| {
        let point = |flush: &lastgasp_hal_sim::node::sums::Flush| {
            let hold_up = millis(flush.hold_up_us).max(0.1);
            match flush.took_us {
                Some(us) if us <= flush.hold_up_us => (hold_up, millis(us).max(0.1), "ok"),
                Some(us) => (hold_up, millis(us).max(0.1), "ram"),
                None => (hold_up, hold_up * 1.3, "lost"),
            }
        };
        let points: Vec<_> = verdict.sums.flushes.iter().map(point).collect();
        if points.is_empty() {
            return None;
        }
        let x = Decades::around(points.iter().map(|p| p.0), short_time);
        let y = Decades::around(points.iter().map(|p| p.1), short_time);
        let caption = format!(
            "{} failures, {} with a reserve that was too short; worst {}",
            grouped(points.len() as u64),
            grouped(verdict.sums.flushes_missed),
            super::summary::flush(verdict),
        );
        Some((cloud(&points, &x, &y, true, "Time of the last gasp by the hold-up"), caption))
    });
}

fn wear(run: &Run, out: &mut String) {
    each(run, out, "No node lived in this run: --random lets some.", |verdict| {
        let wear = &verdict.sums.wear;
        if wear.iter().all(|value| *value == 0) {
            return None;
        }
        let (unit, what) = match (verdict.sums.wear_is_erases, verdict.profile) {
            (true, Profile::Nor) => ("erases", "Erases of each segment"),
            (true, _) => ("erases", "Erases of each allocation unit of the card"),
            (false, _) => ("KiB", "KiB written into each segment"),
        };
        let ratio =
            verdict.sums.bytes_per_byte().map_or_else(String::new, |r| format!("; {r:.2} bytes written per byte"));
        let inside = verdict.sums.flash_per_byte().map_or_else(String::new, |r| format!(", {r:.2} programmed inside"));
        Some((columns(wear, "ok", unit, what), format!("{what}{ratio}{inside}")))
    });
}

fn losses(run: &Run, out: &mut String) {
    *out += "<h2>Lost, by cause</h2>\n<div class=\"wide\"><table>\n<tr><th>cause</th>";
    run.verdicts.iter().for_each(|verdict| _ = write!(out, "<th>{}</th>", verdict.profile.name()));
    *out += "<th class=\"words\">what it means</th></tr>\n";
    for (cause, words) in CAUSES {
        let of = |verdict: &Verdict| verdict.sums.lost.get(cause).copied().unwrap_or(0);
        if run.verdicts.iter().all(|verdict| of(verdict) == 0) {
            continue;
        }
        write!(out, "<tr><td>{cause}</td>").ok();
        run.verdicts.iter().for_each(|verdict| _ = write!(out, "<td>{}</td>", grouped(of(verdict))));
        writeln!(out, "<td class=\"words\">{words}</td></tr>").ok();
    }
    *out += "</table></div>\n";
}

fn stories(run: &Run, request: &Request, out: &mut String) {
    let broken = run.verdicts.iter().filter(|v| run.counts(v.profile)).flat_map(|v| &v.violations);
    let lies = run.verdicts.iter().filter(|v| !run.counts(v.profile)).flat_map(|v| &v.violations);
    for (title, cases, most) in [
        ("Broken promises", broken.collect::<Vec<_>>(), STORIES),
        ("How a lying card loses what was acknowledged", lies.collect(), 1),
    ] {
        if cases.is_empty() {
            continue;
        }
        writeln!(out, "<h2>{title}</h2>").ok();
        for (id, violation) in cases.into_iter().take(most) {
            let (id, violation) = (escaped(id), escaped(&violation.to_string()));
            writeln!(out, "<details><summary><code>{id}</code> {violation}</summary>\n<pre>").ok();
            story(&id, request, out);
            writeln!(out, "</pre>\n<p><code>{}</code></p></details>", escaped(&run.replay_command(&id))).ok();
        }
    }
}

fn story(id: &str, request: &Request, out: &mut String) {
    let lines = powercut::replay(id, request, false).map_or_else(|e| vec![e], |replayed| replayed.story);
    let skipped = lines.len().saturating_sub(STORY_LINES);
    if skipped > 0 {
        writeln!(out, "({skipped} lines before)").ok();
    }
    for line in &lines[skipped..] {
        match line.char_indices().nth(STORY_COLUMNS) {
            Some((end, _)) => writeln!(out, "{} ...", escaped(&line[..end])),
            None => writeln!(out, "{}", escaped(line)),
        }
        .ok();
    }
}
