//! What a file says of resources: `resources` of a backend and `capacity` of the whole.

use std::collections::BTreeMap;

use super::item::Item;
use crate::resources::{Amount, Capacity, Fraction, Resources, WHOLE_DEVICES_MAX, custom_name};

/// A change of [`Resources`]: what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResourcesUpdate {
    /// New [`Resources::num_cpus`].
    pub num_cpus: Option<f64>,
    /// New [`Resources::num_gpus`].
    pub num_gpus: Option<f64>,
    /// New [`Resources::gpu_memory_bytes`].
    pub gpu_memory_bytes: Option<u64>,
    /// New [`Resources::memory_bytes`].
    pub memory_bytes: Option<u64>,
    /// New amounts of [`Resources::custom`]; 0 takes one away, those that are absent stay.
    pub custom: BTreeMap<String, f64>,
}

impl ResourcesUpdate {
    /// `resources` with the fields that this gives.
    pub(crate) fn applied(&self, mut resources: Resources) -> Resources {
        if let Some(cpus) = self.num_cpus {
            resources = resources.num_cpus(cpus);
        }
        if let Some(gpus) = self.num_gpus {
            resources = resources.num_gpus(gpus);
        }
        resources.gpu_memory_bytes = self.gpu_memory_bytes.unwrap_or(resources.gpu_memory_bytes);
        resources.memory_bytes = self.memory_bytes.unwrap_or(resources.memory_bytes);
        self.custom.iter().fold(resources, |resources, (name, amount)| resources.custom(name, *amount))
    }

    /// Takes the fields of a map; a wrong one is noted and left out.
    pub(crate) fn read(item: Item<'_>) -> Option<Self> {
        let mut fields = item.fields()?;
        let update = Self {
            num_cpus: fields.read("num_cpus", amount),
            num_gpus: fields.read("num_gpus", |item| number(item, Fraction::parse)),
            gpu_memory_bytes: fields.read("gpu_memory_bytes", bytes),
            memory_bytes: fields.read("memory_bytes", bytes),
            custom: fields.read("custom", custom).unwrap_or_default(),
        };
        fields.finish();
        Some(update)
    }
}

/// Reads a capacity; what is absent is as detected, what is null is not counted.
pub(super) fn read_capacity(item: Item<'_>) -> Option<Capacity> {
    let mut fields = item.fields()?;
    let mut capacity = Capacity::default();
    if let Some(cpus) = fields.nullable("num_cpus", amount) {
        capacity = capacity.num_cpus(cpus);
    }
    let gpus_max = WHOLE_DEVICES_MAX.into();
    if let Some(gpus) = fields.nullable("num_gpus", |item| item.whole(0, gpus_max)) {
        capacity = capacity.num_gpus(gpus);
    }
    if let Some(bytes) = fields.nullable("memory_bytes", bytes) {
        capacity = capacity.memory_bytes(bytes);
    }
    match fields.nullable("custom", custom) {
        Some(Some(custom)) => {
            for (name, amount) in custom {
                capacity = capacity.custom(name, amount);
            }
        }
        Some(None) => capacity.custom = None,
        None => {}
    }
    fields.finish();
    Some(capacity)
}

fn amount(item: Item<'_>) -> Option<f64> {
    number(item, Amount::parse)
}

fn bytes(item: Item<'_>) -> Option<u64> {
    item.whole(0, i64::MAX)
}

/// A number that `parse` takes.
fn number<T, E: ToString>(item: Item<'_>, parse: impl FnOnce(f64) -> Result<T, E>) -> Option<f64> {
    let here = item.clone();
    let number = item.number()?;
    match parse(number) {
        Ok(_) => Some(number),
        Err(why) => here.refuse(why.to_string()),
    }
}

/// Amounts by name.
fn custom(item: Item<'_>) -> Option<BTreeMap<String, f64>> {
    let here = item.clone();
    let entries = item.entries()?;
    let max = crate::resources::CUSTOM_RESOURCES_MAX;
    if entries.len() > max {
        return here.refuse(format!("{} were given; at most {max} are allowed", entries.len()));
    }
    let entry = |(name, item): (&str, Item<'_>)| {
        if let Err(why) = custom_name(name) {
            return item.refuse(why);
        }
        Some((name.to_owned(), amount(item)?))
    };
    Some(entries.into_iter().filter_map(entry).collect())
}
