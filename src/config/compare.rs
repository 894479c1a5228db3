//! How a shadow rule of a file compares answers.

use super::item::Item;
use crate::traffic::{COMPARE_SAMPLE_MAX, Compare};

/// `exact`, or a map: numbers within `absolute` and `relative`, else exactly; `noise_floor`; `sample`.
pub(super) fn read(item: Item<'_>) -> Option<Compare> {
    if !item.is_map() {
        return item.word(&[("exact", ())]).map(|()| Compare::exact());
    }
    let mut fields = item.fields()?;
    let from_0 = |item: Item<'_>| match item.clone().number()? {
        number if number >= 0.0 => Some(number),
        number => item.refuse(format!("the number {number} was given; allowed: a number from 0")),
    };
    let share = |item: Item<'_>| match item.clone().number()? {
        share if (0.0..=1.0).contains(&share) => Some(share),
        share => item.refuse(format!("the number {share} was given; allowed: a number from 0 to 1")),
    };
    let sample_max = i64::try_from(COMPARE_SAMPLE_MAX).unwrap_or(i64::MAX);
    let absolute = fields.read("absolute", from_0);
    let relative = fields.read("relative", from_0);
    let noise_floor = fields.read("noise_floor", share);
    let sample = fields.read("sample", |item| item.whole(0, sample_max));
    fields.finish();
    let mut compare = match (absolute, relative) {
        (None, None) => Compare::exact(),
        (absolute, relative) => Compare::within(absolute.unwrap_or(0.0), relative.unwrap_or(0.0)),
    };
    if let Some(share) = noise_floor {
        compare = compare.noise_floor(share);
    }
    if let Some(pairs) = sample {
        compare = compare.sample(pairs);
    }
    Some(compare)
}
