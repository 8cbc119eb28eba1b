//! The plans worth having: no other is as small and as good.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A plan that was evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point<T> {
    /// Bytes, or another budget.
    pub size: u64,
    /// Accuracy, agreement, or a negated damage: more is better. Finite.
    pub quality: f64,
    /// What the point stands for.
    pub payload: T,
}

/// Points by rising size and rising quality, none dominated by another.
///
/// Of two points with the same size and quality the first one inserted stays. As JSON it is the list of its points.
#[derive(Clone, Debug, PartialEq)]
pub struct Front<T> {
    points: Vec<Point<T>>,
}

impl<T> Front<T> {
    /// Without points.
    pub fn new() -> Self {
        Self { points: Vec::new() }
    }

    /// Adds a point and drops what it dominates; says whether it stays. One whose quality is not finite does not.
    pub fn insert(&mut self, size: u64, quality: f64, payload: T) -> bool {
        if !quality.is_finite() || self.best_within(size).is_some_and(|p| p.quality >= quality) {
            return false;
        }
        let start = self.points.partition_point(|p| p.size < size);
        let end = start + self.points[start..].partition_point(|p| p.quality <= quality);
        self.points.splice(start..end, [Point { size, quality, payload }]);
        true
    }

    /// The points, smallest and worst first.
    pub fn points(&self) -> &[Point<T>] {
        &self.points
    }

    /// The best point no larger than `limit`.
    pub fn best_within(&self, limit: u64) -> Option<&Point<T>> {
        self.points[..self.points.partition_point(|p| p.size <= limit)].last()
    }

    /// The smallest point at least as good as `quality`.
    pub fn smallest_reaching(&self, quality: f64) -> Option<&Point<T>> {
        self.points.iter().find(|p| p.quality >= quality)
    }
}

impl<T> Default for Front<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> FromIterator<Point<T>> for Front<T> {
    fn from_iter<I: IntoIterator<Item = Point<T>>>(points: I) -> Self {
        let mut front = Self::new();
        for point in points {
            front.insert(point.size, point.quality, point.payload);
        }
        front
    }
}

impl<T: Serialize> Serialize for Front<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.points.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Front<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Point<T>>::deserialize(deserializer)?.into_iter().collect())
    }
}
