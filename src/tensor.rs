//! Named n-dimensional arrays: what goes into a model and what comes out of it.

mod data;
mod datatype;
mod rows;

pub use data::TensorData;
pub use datatype::Datatype;

use crate::error::ServeError;

/// Most axes that a tensor may have.
pub const TENSOR_RANK_MAX: usize = 8;

/// Most elements that a tensor may have: 2^28, so 1 GiB of FP32.
pub const TENSOR_ELEMENTS_MAX: usize = 1 << 28;

/// A named array of one datatype, its elements in row-major order.
///
/// Its shape always fits its data. The first axis counts rows, and rows are what is batched:
/// see [`Tensor::concat`] and [`Tensor::split`].
///
/// ```
/// use greenroom::{Datatype, Tensor};
/// let pixels = Tensor::new("pixels", [2, 3], vec![0.0_f32, 0.1, 0.2, 0.3, 0.4, 0.5])?;
/// assert_eq!((pixels.datatype(), pixels.rows()), (Datatype::Fp32, Some(2)));
/// assert!(Tensor::new("pixels", [2, 2], vec![0.0_f32]).is_err());
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    name: Box<str>,
    shape: Vec<usize>,
    data: TensorData,
}

impl Tensor {
    /// A tensor of `shape`, its elements in row-major order.
    ///
    /// # Errors
    /// [`ServeError::BadRequest`] when `shape` has more than [`TENSOR_RANK_MAX`] axes, holds more than
    /// [`TENSOR_ELEMENTS_MAX`] elements, or another number of elements than `data`.
    pub fn new(
        name: impl Into<Box<str>>,
        shape: impl Into<Vec<usize>>,
        data: impl Into<TensorData>,
    ) -> Result<Self, ServeError> {
        let (name, shape, data) = (name.into(), shape.into(), data.into());
        let elements =
            elements_of(&shape).map_err(|why| ServeError::bad_request(format!("tensor `{name}`: {why}")))?;
        if elements != data.len() {
            return Err(ServeError::bad_request(format!(
                "tensor `{name}`: shape {shape:?} holds {elements} elements, {} were given",
                data.len()
            )));
        }
        Ok(Self { name, shape, data })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Elements along each axis; no axis at all for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Type of its elements.
    pub fn datatype(&self) -> Datatype {
        self.data.datatype()
    }

    /// Its elements, in row-major order.
    pub fn data(&self) -> &TensorData {
        &self.data
    }

    /// Takes its elements, in row-major order.
    pub fn into_data(self) -> TensorData {
        self.data
    }

    /// Length of the first axis; none for a scalar, which has no axis.
    pub fn rows(&self) -> Option<usize> {
        self.shape.first().copied()
    }
}

/// Number of elements of `shape`, or why it is refused.
pub(crate) fn elements_of(shape: &[usize]) -> Result<usize, String> {
    if shape.len() > TENSOR_RANK_MAX {
        return Err(format!("the shape has {} axes, at most {TENSOR_RANK_MAX} are allowed", shape.len()));
    }
    // A zero anywhere makes it empty, however large the other axes are.
    let elements = if shape.contains(&0) {
        Some(0)
    } else {
        shape.iter().try_fold(1_usize, |all, axis| all.checked_mul(*axis))
    };
    match elements {
        Some(elements) if elements <= TENSOR_ELEMENTS_MAX => Ok(elements),
        _ => Err(format!(
            "shape {shape:?} holds more than {TENSOR_ELEMENTS_MAX} elements, the most that is allowed"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_does_not_fit_is_refused_with_both_numbers() {
        let error = Tensor::new("x", [2, 3], vec![1_i64, 2]).unwrap_err().to_string();
        assert!(
            error.contains("`x`") && error.contains("holds 6") && error.contains("2 were given"),
            "{error}"
        );
    }

    #[test]
    fn huge_shapes_do_not_overflow() {
        for shape in [vec![usize::MAX, usize::MAX], vec![TENSOR_ELEMENTS_MAX, 2], vec![1; 9]] {
            let error = Tensor::new("x", shape, vec![0_u8]).unwrap_err().to_string();
            assert!(error.contains("allowed"), "{error}");
        }
        assert!(Tensor::new("x", [usize::MAX, 0, usize::MAX], Vec::<f32>::new()).is_ok());
    }

    #[test]
    fn a_scalar_has_one_element_and_no_rows() {
        let scalar = Tensor::new("x", [], vec![1.5_f64]).unwrap();
        assert_eq!((scalar.rows(), scalar.data().len()), (None, 1));
    }
}
