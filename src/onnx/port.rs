//! An input or output of a model: what it takes, checked before a run and told in every refusal.

use std::fmt;

use tract_onnx::prelude::{Symbol, TDim, TVec, TypedFact};

use super::convert;
use crate::{
    error::ServeError,
    oip::TensorMetadata,
    tensor::{Datatype, Tensor},
};

/// Length of one axis.
#[derive(Debug)]
pub(super) enum Axis {
    /// Always this many.
    Fixed(usize),
    /// Whatever the request says, but the same wherever the model uses this symbol.
    Symbol(Symbol),
    /// Computed from symbols; tract checks it.
    Computed(TDim),
}

/// One input or output.
#[derive(Debug)]
pub(super) struct Port {
    pub name: Box<str>,
    pub datatype: Datatype,
    pub axes: Vec<Axis>,
}

impl Port {
    /// From what tract knows of it; else why it is not supported.
    pub(super) fn new(name: &str, fact: &TypedFact) -> Result<Self, String> {
        let datatype = convert::datatype(fact.datum_type).ok_or_else(|| {
            let datum = fact.datum_type;
            format!("`{name}` has elements of type {datum:?}; BYTES and quantised elements are not supported")
        })?;
        let axis = |length: &TDim| match (length.as_i64().map(usize::try_from), length) {
            (Some(Ok(length)), _) => Axis::Fixed(length),
            (_, TDim::Sym(symbol)) => Axis::Symbol(symbol.clone()),
            (_, computed) => Axis::Computed(computed.clone()),
        };
        Ok(Self { name: name.into(), datatype, axes: fact.shape.iter().map(axis).collect() })
    }

    /// As the protocol tells it.
    pub(super) fn metadata(&self) -> TensorMetadata {
        let length = |axis: &Axis| match axis {
            Axis::Fixed(length) => i64::try_from(*length).unwrap_or(i64::MAX),
            Axis::Symbol(_) | Axis::Computed(_) => -1,
        };
        TensorMetadata {
            name: self.name.to_string(),
            datatype: self.datatype,
            shape: self.axes.iter().map(length).collect(),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, datatype, axes } = self;
        write!(f, "`{name}` {datatype} [")?;
        for (index, axis) in axes.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            match axis {
                Axis::Fixed(length) => write!(f, "{length}")?,
                Axis::Symbol(symbol) => write!(f, "{symbol}")?,
                Axis::Computed(length) => write!(f, "{length}")?,
            }
        }
        f.write_str("]")
    }
}

/// The tensors of a request in the order of `ports`, once each is known to fit.
pub(super) fn match_inputs<'a>(ports: &[Port], inputs: &'a [Tensor]) -> Result<TVec<&'a Tensor>, ServeError> {
    let mut places: TVec<Option<&Tensor>> = ports.iter().map(|_| None).collect();
    for input in inputs {
        let place = ports.iter().position(|port| *port.name == *input.name());
        let Some(place) = place else {
            let takes: Vec<String> = ports.iter().map(Port::to_string).collect();
            let takes = takes.join(", ");
            return Err(refuse(input.name(), format!("the model has no such input; it takes {takes}")));
        };
        if places[place].replace(input).is_some() {
            return Err(refuse(input.name(), "it is given twice"));
        }
    }
    let mut lengths = Lengths::default();
    let mut matched = TVec::with_capacity(ports.len());
    for (port, input) in ports.iter().zip(places) {
        let input =
            input.ok_or_else(|| refuse(&port.name, format!("it is missing; the model takes {port}")))?;
        check(port, input, &mut lengths)?;
        matched.push(input);
    }
    Ok(matched)
}

/// What the symbols stand for in this request, and which input said so.
type Lengths<'a> = TVec<(&'a Symbol, usize, &'a str)>;

fn check<'a>(port: &'a Port, input: &Tensor, lengths: &mut Lengths<'a>) -> Result<(), ServeError> {
    let (name, shape) = (input.name(), input.shape());
    if input.datatype() != port.datatype {
        return Err(refuse(name, format!("it is {}; the model takes {port}", input.datatype())));
    }
    let misfit = |why: &str| refuse(name, format!("its shape is {shape:?}; the model takes {port}{why}"));
    if shape.len() != port.axes.len() {
        return Err(misfit(""));
    }
    for (index, (given, axis)) in shape.iter().zip(&port.axes).enumerate() {
        match axis {
            Axis::Fixed(length) if length == given => {}
            Axis::Fixed(length) if index == 0 => {
                let rows = format!(": it is made for exactly {length} along the first axis, not for {given}");
                return Err(misfit(&rows));
            }
            Axis::Fixed(_) => return Err(misfit("")),
            Axis::Symbol(_) if *given == 0 => return Err(misfit(" with at least 1 along each axis")),
            Axis::Symbol(symbol) => match lengths.iter().find(|(known, ..)| *known == symbol) {
                None => lengths.push((symbol, *given, &port.name)),
                Some((_, length, _)) if length == given => {}
                Some((_, length, first)) => {
                    return Err(misfit(&format!(", and {symbol} is {length} in `{first}`")));
                }
            },
            Axis::Computed(_) => {}
        }
    }
    Ok(())
}

fn refuse(name: &str, why: impl fmt::Display) -> ServeError {
    ServeError::bad_request(format!("input `{name}`: {why}"))
}
