//! Batching along the first axis: many tensors into one, and back.

use super::{Tensor, elements_of};
use crate::error::ServeError;

impl Tensor {
    /// Joins tensors along the first axis, in order; one tensor alone is handed back as it is.
    ///
    /// ```
    /// use greenroom::Tensor;
    /// let one = Tensor::new("x", [1, 2], vec![1_i32, 2])?;
    /// let two = Tensor::new("x", [2, 2], vec![3_i32, 4, 5, 6])?;
    /// let all = Tensor::concat(vec![one.clone(), two.clone()])?;
    /// assert_eq!(all.shape(), [3, 2]);
    /// assert_eq!(all.split(&[1, 2])?, [one, two]);
    /// # Ok::<(), greenroom::ServeError>(())
    /// ```
    ///
    /// # Errors
    /// [`ServeError::BadRequest`] when there is none, when one is a scalar, when they differ in name,
    /// datatype or any axis but the first, or when the result would be too large for a tensor.
    pub fn concat(parts: Vec<Self>) -> Result<Self, ServeError> {
        let added: usize = parts.iter().skip(1).map(|part| part.data.len()).sum();
        let mut parts = parts.into_iter();
        let Some(mut all) = parts.next() else {
            return Err(ServeError::bad_request("there is no tensor to join; at least one is needed"));
        };
        if parts.len() == 0 {
            return Ok(all);
        }
        for part in parts.as_slice() {
            all.check_joins(part)?;
        }
        let rows: usize = parts.as_slice().iter().filter_map(Tensor::rows).fold(0, usize::saturating_add);
        all.shape[0] = all.shape[0].saturating_add(rows);
        elements_of(&all.shape)
            .map_err(|why| ServeError::bad_request(format!("tensor `{}`: {why}", all.name)))?;
        all.data.reserve(added);
        for part in parts {
            if !all.data.append(part.data) {
                return Err(ServeError::Internal("joined tensors differ in datatype".into()));
            }
        }
        Ok(all)
    }

    /// Whether `other` can be joined to this along the first axis; if not, why.
    ///
    /// # Errors
    /// [`ServeError::BadRequest`] where they differ in name, datatype or any axis but the first, or
    /// where one is a scalar.
    pub fn check_joins(&self, other: &Self) -> Result<(), ServeError> {
        let refuse = |what: String| Err(ServeError::bad_request(what));
        let name = &self.name;
        if other.name != *name {
            return refuse(format!("tensor `{}` cannot be joined to tensor `{name}`", other.name));
        }
        if other.datatype() != self.datatype() {
            let (given, first) = (other.datatype(), self.datatype());
            return refuse(format!("tensor `{name}`: {given} cannot be joined to {first}"));
        }
        match (self.shape.as_slice(), other.shape.as_slice()) {
            ([_, row @ ..], [_, other_row @ ..]) if row == other_row => Ok(()),
            (first, given) => refuse(format!(
                "tensor `{name}`: shape {given:?} cannot be joined to {first:?}; \
                 both need an axis, and only the first may differ"
            )),
        }
    }

    /// Takes it apart again: one tensor for each number of `rows`, in order.
    ///
    /// # Errors
    /// A backend's error (`tensor_rows`) when the numbers do not add up to [`Tensor::rows`]: it is the
    /// backend that answered with another number of rows than it was given.
    pub fn split(self, rows: &[usize]) -> Result<Vec<Self>, ServeError> {
        let asked = rows.iter().try_fold(0_usize, |sum, rows| sum.checked_add(*rows));
        if self.rows().is_none() || asked != self.rows() {
            return Err(ServeError::backend(
                500,
                "tensor_rows",
                format!(
                    "tensor `{}` of shape {:?} cannot be split into rows of {rows:?}",
                    self.name, self.shape
                ),
            ));
        }
        if let [_] = rows {
            return Ok(vec![self]);
        }
        let row_elements = self.data.len().checked_div(self.shape[0]).unwrap_or(0);
        let mut start = 0;
        let part = |rows: &usize| {
            let end = start + rows * row_elements;
            let mut shape = self.shape.clone();
            shape[0] = *rows;
            let data = self.data.part(start..end);
            start = end;
            Self { name: self.name.clone(), shape, data }
        };
        Ok(rows.iter().map(part).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Fault;

    fn x(shape: impl Into<Vec<usize>>, data: impl Into<crate::TensorData>) -> Tensor {
        Tensor::new("x", shape, data).unwrap()
    }

    #[test]
    fn what_differs_is_told() {
        let first = x([1, 2], vec![1_i32, 2]);
        let cases = [
            (Tensor::new("y", [1, 2], vec![1_i32, 2]).unwrap(), "`y`"),
            (x([1, 2], vec![1_i64, 2]), "INT64 cannot be joined to INT32"),
            (x([1, 3], vec![1_i32, 2, 3]), "[1, 3]"),
            (x([], vec![1_i32]), "need an axis"),
        ];
        for (other, told) in cases {
            let error = Tensor::concat(vec![first.clone(), other]).unwrap_err();
            assert!(error.to_string().contains(told) && error.code() == "bad_request", "{error}");
        }
        assert!(Tensor::concat(vec![]).is_err());
    }

    #[test]
    fn rows_that_do_not_add_up_are_the_backends_fault() {
        let error = x([3], vec![1_u8, 2, 3]).split(&[1, 1]).unwrap_err();
        assert_eq!((error.fault(), error.code()), (Fault::Backend, "tensor_rows"));
        assert!(x([], vec![1_u8]).split(&[1]).is_err());
        assert!(x([3], vec![1_u8, 2, 3]).split(&[usize::MAX, 4]).is_err());
    }

    proptest! {
        #[test]
        fn splitting_undoes_joining(counts in prop::collection::vec(0_usize..5, 1..6), width in 0_usize..4) {
            let mut next = 0.0_f32;
            let mut part = |rows: &usize| {
                let values: Vec<f32> = (0..rows * width).map(|_| { next += 1.0; next }).collect();
                x([*rows, width], values)
            };
            let parts: Vec<Tensor> = counts.iter().map(&mut part).collect();
            let all = Tensor::concat(parts.clone()).unwrap();
            prop_assert_eq!(all.rows(), Some(counts.iter().sum()));
            prop_assert_eq!(all.split(&counts).unwrap(), parts);
        }
    }
}
