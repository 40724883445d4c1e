//! Reading metrics as they are scraped.

use service::Process;

/// The value of a counter or a gauge whose series has this label value; `None` where there is none.
pub fn series(process: &Process, name: &str, label: &str) -> Option<f64> {
    let families = process.metrics.gather();
    let family = families.iter().find(|family| family.name() == name)?;
    let has_label = |metric: &&prometheus::proto::Metric| {
        let mut labels = metric.get_label().iter();
        labels.any(|pair| pair.value() == label)
    };
    let found = family.get_metric().iter().find(has_label)?;
    Some(found.get_counter().get_value() + found.get_gauge().get_value())
}
