//! The report as one HTML file, with nothing to load.

use std::fmt::Write;

use crate::load_test::chart::{Scale, Series, chart, escape};
use crate::load_test::recorder::{Failure, Kill};
use crate::load_test::report::{Report, Run, Verdict};

#[expect(clippy::cast_precision_loss, reason = "requests of one second are far below 2^52")]
const THROUGHPUT: [Series; 2] = [
    Series { class: "rate", name: "requests per second", value: |second| second.requests as f64 },
    Series { class: "errors", name: "errors per second", value: |second| second.errors as f64 },
];

const LATENCY: [Series; 2] = [
    Series { class: "p50", name: "p50", value: |second| second.p50_ms },
    Series { class: "p99", name: "p99", value: |second| second.p99_ms },
];

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let class = if report.verdict == Verdict::Passed { "passed" } else { "failed" };
    let mut body = format!(
        "<header><p class=\"eyebrow\">demo-shop load test</p><h1 class=\"{class}\"><span class=\"badge\">{}</span>{}</h1></header>",
        if report.verdict == Verdict::Passed { "✓" } else { "✕" },
        escape(report.sentence().split_once(": ").map_or("", |(_, text)| text)),
    );
    body.push_str(&summary(report));
    for run in &report.runs {
        body.push_str(&section(run));
    }
    let _ = write!(
        body,
        "<footer><p>Each shopper keeps cookies and a ledger of its own, acts on a plan with a mean pause of {} ms, repeats a \
         change whose outcome is unknown under the same key until it is known, and compares every cart it reads with the \
         ledger. A canary in each cart (a product and quantity that nobody else has) shows mix-ups. Latencies count from the \
         moment a shopper intended to send, so a shop that stalls is charged for the requests it delayed; in parentheses, from \
         the moment of sending. Errors are exchanges that failed; they lose nothing when the repetition is answered.</p>\
         <p>Seed {}.</p></footer>",
        report.think_time_ms, report.seed
    );
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>Load test: {class}</title><style>{STYLE}</style></head>\
         <body><main>{body}</main></body></html>\n"
    )
}

fn summary(report: &Report) -> String {
    let mut rows = String::new();
    for run in &report.runs {
        let shares: Vec<String> =
            run.shares.iter().map(|share| format!("{} {:.0} %", escape(&share.replica), share.percent)).collect();
        let losses = run.losses.total();
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{:.1}</td><td>{:.2} <small>({:.2})</small></td>\
             <td>{:.2} <small>({:.2})</small></td><td>{}</td><td class=\"text\">{}</td><td>{} / {:.1}</td>\
             <td>{}</td><td class=\"{}\">{losses}</td></tr>",
            run.replicas,
            group(run.requests),
            run.requests_per_second,
            run.latency.p50_ms,
            run.service_time.p50_ms,
            run.latency.p99_ms,
            run.service_time.p99_ms,
            group(run.errors.total),
            shares.join(" · "),
            run.instances_per_shopper.min,
            run.instances_per_shopper.average,
            run.kills.len(),
            if losses == 0 { "good" } else { "bad" },
        );
    }
    format!(
        "<div class=\"scroll\"><table><thead><tr><th>Replicas</th><th>Requests</th><th>Per second</th><th>p50 ms</th>\
         <th>p99 ms</th><th>Errors</th><th class=\"text\">Shares</th><th>Seen per shopper<br><small>min / average</small></th>\
         <th>Kills</th><th>Losses</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

fn section(run: &Run) -> String {
    let plural = if run.replicas == 1 { "" } else { "s" };
    let operations = run.operations;
    let mut text = format!(
        "<section><h2>{} replica{plural}</h2><p class=\"facts\">{} shoppers for {:.0} s · {} changes acknowledged, {} refused, \
         {} unknown, {} repeated · {} carts compared</p>",
        run.replicas,
        group(u64::from(run.shoppers)),
        run.duration_s,
        group(operations.acknowledged),
        group(operations.refused),
        group(operations.unknown),
        group(operations.repeated),
        group(operations.carts_compared),
    );
    if operations.not_begun > 0 {
        let _ = write!(
            text,
            "<p class=\"facts\">The shop fell behind: {} planned actions were not begun in time.</p>",
            group(operations.not_begun)
        );
    }
    text.push_str("<ul class=\"losses\">");
    for (name, count) in run.losses.named() {
        let class = if count == 0 { "good" } else { "bad" };
        let _ = write!(text, "<li class=\"{class}\"><b>{}</b> {name}</li>", group(count));
    }
    text.push_str("</ul>");
    if !run.examples.is_empty() {
        text.push_str("<details open><summary>The first findings</summary><ul class=\"examples\">");
        for example in &run.examples {
            let _ = write!(text, "<li>{}</li>", escape(example));
        }
        text.push_str("</ul></details>");
    }
    let mark = if run.kills.is_empty() { "" } else { "<span class=\"key killkey\">✕ a process fails</span>" };
    let _ = write!(
        text,
        "<figure><figcaption>Latency, ms, logarithmic <span class=\"key p50\">p50</span><span class=\"key p99\">p99</span>{mark}\
         </figcaption>{}</figure>",
        chart("Latency over time", &run.timeline, &run.kills, &LATENCY, Scale::Logarithmic)
    );
    let _ = write!(
        text,
        "<figure><figcaption>Per second <span class=\"key rate\">requests</span><span class=\"key errors\">errors</span>{mark}\
         </figcaption>{}</figure>",
        chart("Requests and errors per second", &run.timeline, &run.kills, &THROUGHPUT, Scale::Linear)
    );
    if !run.kills.is_empty() {
        text.push_str(&kills(&run.kills));
    }
    text.push_str("</section>");
    text
}

fn kills(kills: &[Kill]) -> String {
    let after = |ms: Option<f64>, none: &str| ms.map_or_else(|| none.to_owned(), |ms| format!("{ms:.0} ms"));
    let mut rows = String::new();
    for kill in kills {
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{:.1} s</th><td class=\"text\">{} of {} (pid {})</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td></tr>",
            kill.at_s,
            kill.failure.name(),
            escape(&kill.replica),
            kill.pid,
            after(kill.first_error_ms, "none"),
            after(kill.first_success_ms, "not seen"),
            after(kill.gap_ms, "not seen"),
            if kill.failure == Failure::ReplicaKilled { after(kill.back_ms, "not seen") } else { "–".to_owned() },
        );
    }
    format!(
        "<div class=\"scroll\"><table><thead><tr><th>At</th><th class=\"text\">Failure</th><th>First error after</th>\
         <th>First success after</th><th>No change acknowledged for</th><th>Serving again after</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

/// A number with its thousands apart.
fn group(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

const STYLE: &str = include_str!("report.css");

#[cfg(test)]
mod tests {
    use crate::load_test::html::{group, page};
    use crate::load_test::recorder::{Failure, Outcome, Recorder, Sample};
    use crate::load_test::report::{Report, Run};

    #[test]
    fn thousands_are_apart() {
        assert_eq!([7, 999, 1_000, 1_234_567].map(group), ["7", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]);
    }

    #[test]
    fn the_page_loads_nothing_and_escapes_names() {
        let recorder = Recorder::new();
        let now = tokio::time::Instant::now();
        let sample = Sample { intended: now, sent: now, done: now, outcome: Outcome::Success, served_by: Some("<b>") };
        recorder.record(&sample);
        recorder.kill(Failure::ReplicaKilled, "<i>", 1);
        recorder.count(|operations| operations.acknowledged = 1);
        let report = Report::new(1, 500, vec![Run::new(1, 1, recorder.totals(std::time::Duration::from_secs(1)), &[1])]);
        let page = page(&report);
        for outside in ["<script", "<link", "src=", "href=", "url(", "@import", "<b>", "<i>"] {
            // The badge of the losses is a <b> of our own, with a number in it.
            let count = page.matches(outside).count() - if outside == "<b>" { 8 } else { 0 };
            assert_eq!(count, 0, "{outside}");
        }
        assert!(page.contains("1 changes acknowledged") && page.contains("&lt;i&gt;"));
    }
}
