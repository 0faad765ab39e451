//! Keys and values of sequences, owned: rows beside each other that end at the same column.

use candle_core::{DType, Device, Result, Tensor};

/// Keys and values of one or more sequences: for each layer two tensors `[kv heads * rows, capacity, head]`. All rows
/// end at the same column, so that one token more of each is one column more; a row that is shorter than others
/// starts later. Positions were turned into keys before they came here, so where a row stands does not matter.
///
/// A value that is shared (behind `Arc`) never changes; only its one owner appends.
#[derive(Debug)]
pub(crate) struct KeyValues {
    layers: Vec<(Tensor, Tensor)>,
    /// First column of each row.
    starts: Vec<usize>,
    /// Columns in use.
    end: usize,
    capacity: usize,
}

/// What decides the size of keys and values.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) layers: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head: usize,
    pub(crate) dtype: DType,
    pub(crate) device: Device,
}

impl Shape {
    /// Bytes of one token.
    pub(crate) fn token_bytes(&self) -> usize {
        2 * self.layers * self.kv_heads * self.head * self.dtype.size_in_bytes()
    }
}

/// Some columns of one row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub(crate) from: &'a KeyValues,
    pub(crate) row: usize,
    pub(crate) first: usize,
    pub(crate) length: usize,
}

impl KeyValues {
    /// Empty rows with room for `capacity` columns.
    pub(crate) fn empty(shape: &Shape, rows: usize, capacity: usize) -> Result<Self> {
        let zeros =
            || Tensor::zeros((shape.kv_heads * rows, capacity, shape.head), shape.dtype, &shape.device);
        // Zeros, not whatever was there: a hidden column has no weight, but no weight times NaN is NaN.
        let layers = (0..shape.layers).map(|_| Ok((zeros()?, zeros()?))).collect::<Result<_>>()?;
        Ok(Self { layers, starts: vec![0; rows], end: 0, capacity })
    }

    /// Rows put together from pieces, aligned at their ends, with room for `room` columns more.
    pub(crate) fn gather(shape: &Shape, rows: &[Vec<Piece<'_>>], room: usize) -> Result<Self> {
        let length = |row: &Vec<Piece<'_>>| row.iter().map(|piece| piece.length).sum::<usize>();
        let end = rows.iter().map(length).max().unwrap_or(0);
        let mut out = Self::empty(shape, rows.len(), end + room)?;
        (out.end, out.starts) = (end, rows.iter().map(|row| end - length(row)).collect());
        for layer in 0..shape.layers {
            for (index, row) in rows.iter().enumerate() {
                let mut column = out.starts[index];
                for piece in row.iter().filter(|piece| piece.length > 0) {
                    out.copy(layer, index, column, piece, shape.kv_heads)?;
                    column += piece.length;
                }
            }
        }
        Ok(out)
    }

    /// Rows that were computed beside each other, `[kv heads * rows, columns, head]` for each layer.
    pub(crate) fn computed(layers: Vec<(Tensor, Tensor)>, rows: usize) -> Result<Self> {
        let end = layers.first().map_or(Ok(0), |(keys, _)| keys.dim(1))?;
        Ok(Self { layers, starts: vec![0; rows], end, capacity: end })
    }

    fn copy(
        &self,
        layer: usize,
        row: usize,
        column: usize,
        piece: &Piece<'_>,
        kv_heads: usize,
    ) -> Result<()> {
        let (rows, from_rows) = (self.rows(), piece.from.rows());
        let (own, other) = (&self.layers[layer], &piece.from.layers[layer]);
        for (to, from) in [(&own.0, &other.0), (&own.1, &other.1)] {
            let head = to.dim(2)?;
            let source = from
                .reshape((kv_heads, from_rows * piece.from.capacity, head))?
                .narrow(1, piece.row * piece.from.capacity + piece.first, piece.length)?
                .contiguous()?;
            let target = to.reshape((kv_heads, rows * self.capacity, head))?;
            target.slice_set(&source, 1, row * self.capacity + column)?;
        }
        Ok(())
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.starts.len()
    }

    /// Columns in use.
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// Columns that fit.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// First column of each row.
    pub(crate) fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Size in memory.
    pub(crate) fn bytes(&self) -> usize {
        let size = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        self.layers.iter().map(|(keys, values)| size(keys) + size(values)).sum()
    }

    /// A whole row.
    pub(crate) fn row(&self, row: usize) -> Piece<'_> {
        let first = self.starts[row];
        Piece { from: self, row, first, length: self.end - first }
    }

    /// Writes a layer's new columns, `[kv heads * rows, columns, head]`, after the last one; they count once
    /// [`Self::grow`] was called, after all layers. Answers everything up to them, without copying.
    pub(crate) fn write(&self, layer: usize, own: &(Tensor, Tensor)) -> Result<(Tensor, Tensor)> {
        let (keys, values) = &self.layers[layer];
        keys.slice_set(&own.0, 1, self.end)?;
        values.slice_set(&own.1, 1, self.end)?;
        let end = self.end + own.0.dim(1)?;
        Ok((keys.narrow(1, 0, end)?, values.narrow(1, 0, end)?))
    }

    /// Counts `columns` more.
    pub(crate) fn grow(&mut self, columns: usize) {
        self.end += columns;
    }

    /// The first `length` columns of a layer, without copying.
    fn view(&self, layer: usize, length: usize) -> Result<Option<(Tensor, Tensor)>> {
        if length == 0 {
            return Ok(None);
        }
        let (keys, values) = &self.layers[layer];
        Ok(Some((keys.narrow(1, 0, length)?, values.narrow(1, 0, length)?)))
    }
}

/// A past that many rows share: the first `length` tokens of a single sequence, or nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past<'a>(pub(crate) Option<(&'a KeyValues, usize)>);

impl Past<'_> {
    /// Keys and values of a layer, `[kv heads, length, head]`.
    pub(crate) fn layer(&self, layer: usize) -> Result<Option<(Tensor, Tensor)>> {
        self.0.map_or(Ok(None), |(sequence, length)| sequence.view(layer, length))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn shape() -> Shape {
        Shape { layers: 2, kv_heads: 3, head: 2, dtype: DType::F32, device: Device::Cpu }
    }

    /// Rows whose values name layer, head, row and column.
    fn named(rows: usize, columns: usize) -> KeyValues {
        let layer = |layer: usize| {
            let mut values = Vec::new();
            for head in 0..3 {
                for row in 0..rows {
                    for column in 0..columns {
                        let name = (layer * 1000 + head * 100 + row * 10 + column) as f32;
                        values.extend([name, -name]);
                    }
                }
            }
            let keys = Tensor::from_vec(values, (3 * rows, columns, 2), &Device::Cpu).unwrap();
            (keys.clone(), (keys + 0.5).unwrap())
        };
        KeyValues::computed(vec![layer(0), layer(1)], rows).unwrap()
    }

    #[test]
    fn pieces_of_rows_become_rows_that_end_together() {
        let (one, many) = (named(1, 5), named(4, 3));
        let piece = |from, row, first, length| Piece { from, row, first, length };
        let rows = [
            vec![piece(&one, 0, 0, 5), piece(&many, 2, 1, 2)],
            vec![piece(&many, 0, 0, 3)],
            vec![piece(&one, 0, 1, 2), piece(&one, 0, 0, 0), piece(&many, 3, 2, 1)],
        ];
        let gathered = KeyValues::gather(&shape(), &rows, 2).unwrap();
        assert_eq!((gathered.rows(), gathered.end(), gathered.capacity()), (3, 7, 9));
        assert_eq!(gathered.starts(), [0, 4, 4]);
        let expected = [vec![0., 1., 2., 3., 4., 21., 22.], vec![0., 1., 2.], vec![1., 2., 32.]];
        for layer in 0..2 {
            let keys = gathered.layers[layer].0.to_vec3::<f32>().unwrap();
            let values = gathered.layers[layer].1.to_vec3::<f32>().unwrap();
            for (row, expected) in expected.iter().enumerate() {
                for head in 0..3 {
                    let base = (layer * 1000 + head * 100) as f32;
                    for (column, name) in (gathered.starts()[row]..).zip(expected) {
                        assert_eq!(keys[head * 3 + row][column], [base + name, -base - name]);
                        assert_eq!(values[head * 3 + row][column], [base + name + 0.5, 0.5 - base - name]);
                    }
                    assert!(keys[head * 3 + row][7..].iter().flatten().all(|value| *value == 0.0));
                }
            }
        }
        let again = KeyValues::gather(&shape(), &[vec![gathered.row(2)]], 0).unwrap();
        assert_eq!(
            again.layers[1].0.to_vec3::<f32>().unwrap()[2],
            [[1201., -1201.], [1202., -1202.], [1232., -1232.]]
        );
    }

    #[test]
    fn appended_columns_count_once_all_layers_have_them() {
        let mut rows = KeyValues::empty(&shape(), 2, 3).unwrap();
        let column = named(2, 1).layers;
        for step in 0..2 {
            for (layer, own) in column.iter().enumerate() {
                let (keys, _) = rows.write(layer, own).unwrap();
                assert_eq!(keys.dims(), [6, step + 1, 2]);
            }
            assert_eq!(rows.end(), step);
            rows.grow(1);
        }
        assert_eq!(rows.row(1).length, 2);
        assert_eq!(rows.bytes(), 2 * 2 * 6 * 3 * 2 * 4);
    }
}
