//! Outputs in words, and what to be warned of.

use super::numbers::{decibels, percent};
use crate::measure::metrics::{OutputMetrics, Quarter};
use crate::scheme::output_kind::OutputKind;

/// Signal-to-noise ratio of the worst channel in decibels below which an output is warned of.
const WORST_CHANNEL: f64 = 20.0;
/// The same of all channels on average.
const AVERAGE: f64 = 15.0;
/// Share of answers above which an output is warned of.
const ANSWERS: f64 = 0.01;

/// What is said of outputs that are text.
pub fn text_note(outputs: &[String]) -> Option<String> {
    let names: Vec<String> = outputs.iter().map(|name| format!("`{name}`")).collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    (!names.is_empty()).then(|| format!("{} {verb} text and not compared", names.join(", ")))
}

/// How far an output is from the float model's.
pub fn words(output: &OutputMetrics) -> String {
    if !output.compared {
        return "not compared".to_owned();
    }
    if output.lost == 0.0 && output.distance == 0.0 && output.worst_sqnr.is_none() {
        return "equal".to_owned();
    }
    let figures = &output.figures;
    let ratio = |sqnr: Option<f64>| sqnr.map_or("without error".to_owned(), decibels);
    let agreement = figures.agreement.map(|a| format!("agreement with float {}", percent(a, 1)));
    let divergence = figures.divergence.map(|d| format!("KL {d:.4}"));
    let parts = match output.kind {
        OutputKind::Scores => vec![agreement, divergence],
        OutputKind::Sequence => {
            let alike = figures.same_sequences.map(|s| format!("sequences that read the same {}", percent(s, 1)));
            let rows = figures.agreement.map(|a| format!("rows {}", percent(a, 1)));
            vec![alike, rows, divergence]
        }
        OutputKind::Values if !output.varies() => {
            let error = output.constant_error.unwrap_or_default();
            vec![Some(format!(
                "does not vary over the samples, so that its loss cannot be measured; off by {error:.2e}"
            ))]
        }
        OutputKind::Values => {
            vec![Some(format!("signal to noise {}", ratio(output.sqnr))), worst_channel(output), constant(output)]
        }
        OutputKind::Embedding => {
            let mean = figures.cosine.map(|c| format!("cosine {c:.4} on average"));
            vec![mean, figures.least_cosine.map(|c| format!("{c:.4} at least"))]
        }
        OutputKind::Boxes => {
            let counts = figures.kept.zip(figures.boxes).map(|(kept, all)| format!("{kept} of {all} boxes kept"));
            let beside = figures.beside.map(|ratio| format!("what else is said of them {}", decibels(ratio)));
            vec![counts, figures.invented.map(|invented| format!("{invented} invented")), beside]
        }
    };
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

fn worst_channel(output: &OutputMetrics) -> Option<String> {
    let (channel, sqnr) = output.worst_channel.zip(output.worst_sqnr).filter(|_| output.channels > 1)?;
    Some(format!("worst of {} channels {} (channel {channel})", output.channels, decibels(sqnr)))
}

fn constant(output: &OutputMetrics) -> Option<String> {
    let error = output.constant_error.filter(|&error| error > 0.0)?;
    Some(format!("channels that do not vary are off by {error:.2e}"))
}

/// What an output holds, and why it is taken for that.
pub fn reading(output: &OutputMetrics) -> String {
    format!("`{}` read as {}: {}", output.name, output.kind, output.because)
}

/// What to be warned of, output by output.
pub fn warnings(outputs: &[OutputMetrics]) -> Vec<String> {
    outputs.iter().flat_map(|output| [loss(output), uneven(output)]).flatten().collect()
}

fn loss(output: &OutputMetrics) -> Option<String> {
    let name = &output.name;
    if !output.compared && output.kind == OutputKind::Boxes {
        return Some(format!(
            "output `{name}` is not compared: the float network finds no box in any sample, so nothing says how many are kept: \
             give data in which there are some"
        ));
    }
    if !output.compared {
        let kind = output.kind;
        return Some(format!(
            "output `{name}` is not compared: in no sample it held anything that can be compared as {kind}"
        ));
    }
    match output.kind {
        OutputKind::Values if !output.varies() => {
            let gone = if output.lost > 0.0 { ", though its values are not what they were" } else { "" };
            Some(format!(
                "output `{name}` does not vary over the samples, so what it loses cannot be measured{gone}: are the samples \
                 prepared as the model wants them?"
            ))
        }
        OutputKind::Values => {
            let low = |sqnr: Option<f64>, least: f64| sqnr.filter(|&sqnr| sqnr < least).map(decibels);
            if let Some(ratio) = low(output.sqnr, AVERAGE) {
                return Some(format!("output `{name}` has a signal-to-noise ratio of only {ratio}"));
            }
            let ratio = low(output.worst_sqnr, WORST_CHANNEL)?;
            let channel = output.worst_channel.map_or_else(String::new, |channel| format!("channel {channel} of "));
            Some(format!("{channel}output `{name}` has a signal-to-noise ratio of only {ratio}"))
        }
        OutputKind::Embedding => {
            let cosine = output.figures.cosine.filter(|&cosine| 1.0 - cosine > ANSWERS)?;
            Some(format!("vectors of output `{name}` have a cosine of only {cosine:.3} with those of float"))
        }
        OutputKind::Boxes if output.lost > ANSWERS => {
            let counts = output.figures.boxes.zip(output.figures.kept).zip(output.figures.invented);
            let ((boxes, kept), invented) = counts?;
            Some(format!("output `{name}`: {} of {boxes} boxes are lost, {invented} are invented", boxes - kept))
        }
        OutputKind::Sequence | OutputKind::Scores if output.lost > ANSWERS => Some(format!(
            "{} of the answers of output `{name}` are others than those of float",
            percent(output.lost, 1)
        )),
        _ => None,
    }
}

fn uneven(output: &OutputMetrics) -> Option<String> {
    let Quarter { quarter, samples, lost, rest } = output.worst_quarter.as_ref()?;
    let which = if let Some(at) = quarter {
        format!("the {} quarter of the samples", ["first", "second", "third", "last"][at.clamp(&1, &4) - 1])
    } else {
        let some = samples.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        format!("a quarter of the samples (of those compared number {some} and others)")
    };
    let name = &output.name;
    let lost = if *lost > 1.0 { "more than 1".to_owned() } else { format!("{lost:.3}") };
    Some(format!("{which} is much worse than the rest: output `{name}` loses {lost} there, {rest:.4} elsewhere"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::metrics::KindFigures;

    #[test]
    fn an_output_that_does_not_vary_is_said_to() {
        let output = OutputMetrics {
            name: "y".to_owned(),
            kind: OutputKind::Values,
            because: String::new(),
            state: false,
            compared: true,
            lost: 0.0,
            distance: 0.01,
            sqnr: None,
            worst_sqnr: None,
            worst_channel: None,
            channels: 2,
            constant_error: Some(1e-6),
            figures: KindFigures::default(),
            worst_quarter: None,
        };
        assert!(words(&output).starts_with("does not vary over the samples"), "{}", words(&output));
        let warned = warnings(std::slice::from_ref(&output));
        assert!(matches!(&warned[..], [one] if one.contains("cannot be measured")), "{warned:?}");
        assert!(words(&OutputMetrics { sqnr: Some(-3.0), ..output }).starts_with("signal to noise -3.0 dB"));
    }

    #[test]
    fn an_output_that_was_not_compared_is_not_equal() {
        let read = r#"{"name": "y", "kind": "embedding", "because": "as asked", "compared": false, "lost": 0.0,
            "distance": 0.0, "sqnr": null, "worst_sqnr": null, "channels": 1}"#;
        let output: OutputMetrics = serde_json::from_str(read).unwrap();
        assert_eq!(words(&output), "not compared");
        let warned = warnings(std::slice::from_ref(&output));
        assert!(matches!(&warned[..], [one] if one.contains("compared as embedding")), "{warned:?}");
        let equal: OutputMetrics = serde_json::from_str(&read.replace("\"compared\": false, ", "")).unwrap();
        assert_eq!(words(&equal), "equal");
        assert!(warnings(std::slice::from_ref(&equal)).is_empty());
        assert!(!serde_json::to_string(&equal).unwrap().contains("compared"));
    }
}
