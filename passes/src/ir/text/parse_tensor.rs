//! Types and tensors, as the parser reads them.

use super::describe::EXTERNAL;
use super::elements::{Kind, Layout, Packer, element_count};
use super::fill::{Fill, LARGEST_FILL, LARGEST_TOTAL_FILL, STRING_COST};
use super::lex::{ParseError, Token, is_float_word};
use super::parse::{Parser, Remark};
use super::spell::TYPE_KEYWORDS;
use crate::ir::{
    DataType, DimValue, DimensionProto, ElementTypeProto, MapTypeProto, OpaqueTypeProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, TypeValue,
};

impl<'a> Parser<'a> {
    /// A type.
    pub(super) fn type_proto(&mut self) -> Result<TypeProto, ParseError> {
        let value = self.nested(|parser| {
            if let Some(tensor) = parser.tensor_type()? {
                return Ok(TypeValue::Tensor(tensor));
            }
            let keyword = match *parser.cursor.peek() {
                Token::Word(word) if TYPE_KEYWORDS.contains(&word) => word,
                _ => return Err(parser.cursor.expected("a type")),
            };
            parser.cursor.advance()?;
            parser.cursor.expect('(')?;
            let value = match keyword {
                "seq" => TypeValue::Sequence(Box::new(parser.element_type()?)),
                "optional" => TypeValue::Optional(Box::new(parser.element_type()?)),
                "map" => TypeValue::Map(Box::new(parser.map_type()?)),
                "opaque" => TypeValue::Opaque(parser.opaque_type()?),
                _ => match parser.tensor_type()? {
                    Some(tensor) => TypeValue::SparseTensor(tensor),
                    None => return Err(parser.cursor.expected("an element type")),
                },
            };
            parser.cursor.expect(')')?;
            Ok(value)
        })?;
        Ok(TypeProto { value: Some(value), denotation: None })
    }

    fn element_type(&mut self) -> Result<ElementTypeProto, ParseError> {
        Ok(ElementTypeProto { elem_type: Some(Box::new(self.type_proto()?)) })
    }

    fn map_type(&mut self) -> Result<MapTypeProto, ParseError> {
        let Token::Word(word) = *self.cursor.peek() else { return Err(self.cursor.expected("the key's type")) };
        let Some(key) = DataType::from_name(word) else { return Err(self.cursor.expected("the key's type")) };
        self.cursor.advance()?;
        self.cursor.expect(',')?;
        Ok(MapTypeProto { key_type: Some(key.number()), value_type: Some(Box::new(self.type_proto()?)) })
    }

    /// `opaque()`, `opaque(name)` or `opaque(domain, name)`; a domain may have dots.
    fn opaque_type(&mut self) -> Result<OpaqueTypeProto, ParseError> {
        if *self.cursor.peek() == Token::Mark(')') {
            return Ok(OpaqueTypeProto::default());
        }
        let mut path = self.cursor.word("a name")?.to_owned();
        while self.cursor.accept('.')? {
            path.push('.');
            path += self.cursor.word("a name")?;
        }
        if self.cursor.accept(',')? {
            return Ok(OpaqueTypeProto { domain: Some(path), name: Some(self.cursor.word("a name")?.to_owned()) });
        }
        Ok(OpaqueTypeProto { domain: None, name: Some(path) })
    }

    /// `float` for a scalar, `float[2,n,?]` for a shape, `float[]` where even the rank is unknown.
    fn tensor_type(&mut self) -> Result<Option<TensorTypeProto>, ParseError> {
        let Token::Word(word) = *self.cursor.peek() else { return Ok(None) };
        let Some(element) = DataType::from_name(word) else { return Ok(None) };
        self.cursor.advance()?;
        let mut dim = Vec::new();
        let has_brackets = self.cursor.accept('[')?;
        if has_brackets {
            self.list(']', |parser| {
                dim.push(DimensionProto { value: parser.axis()?, denotation: None });
                Ok(())
            })?;
        }
        let shape = (!has_brackets || !dim.is_empty()).then_some(TensorShapeProto { dim });
        Ok(Some(TensorTypeProto { elem_type: Some(element.number()), shape }))
    }

    fn axis(&mut self) -> Result<Option<DimValue>, ParseError> {
        if self.cursor.accept('?')? {
            return Ok(None);
        }
        if matches!(self.cursor.peek(), Token::Integer(_)) {
            return Ok(Some(DimValue::Value(self.cursor.integer("a length")?)));
        }
        Ok(Some(DimValue::Param(self.cursor.name("a length, a symbol or `?`")?)))
    }

    /// The data of a tensor: `{...}`, `[...]` for a file beside the model, or nothing yet.
    pub(super) fn tensor_data(&mut self, type_proto: Option<&TypeProto>) -> Result<TensorProto, ParseError> {
        let (data_type, dims) = self.static_type(type_proto)?;
        let mut tensor = TensorProto { dims, data_type: Some(data_type.number()), ..Default::default() };
        if self.cursor.accept('[')? {
            tensor.data_location = Some(EXTERNAL);
            tensor.external_data = self.entries()?;
        } else if *self.cursor.peek() == Token::Mark('{') {
            self.elements(data_type, &mut tensor)?;
        }
        Ok(tensor)
    }

    fn static_type(&self, type_proto: Option<&TypeProto>) -> Result<(DataType, Vec<i64>), ParseError> {
        let Some(TypeValue::Tensor(tensor)) = type_proto.and_then(|type_proto| type_proto.value.as_ref()) else {
            return Err(self.cursor.error("a tensor needs a tensor type"));
        };
        let data_type = tensor.elem_type.and_then(DataType::from_number);
        let fixed =
            |dim: &DimensionProto| if let Some(DimValue::Value(length)) = dim.value { Some(length) } else { None };
        let dims = tensor.shape.as_ref().and_then(|shape| shape.dim.iter().map(fixed).collect());
        data_type.zip(dims).ok_or_else(|| self.cursor.error("the shape of a tensor must be known"))
    }

    /// Elements in braces. Empty braces of a shape with elements mean that the elements are to be generated.
    fn elements(&mut self, data_type: DataType, tensor: &mut TensorProto) -> Result<(), ParseError> {
        let position = self.cursor.position();
        self.cursor.expect('{')?;
        let layout = Layout::of(data_type);
        let mut packer = Packer::new(layout);
        let mut count = 0_usize;
        self.list('}', |parser| {
            count += 1;
            if layout.kind == Kind::Text {
                tensor.string_data.push(parser.cursor.bytes("a string")?.into());
            } else {
                packer.push(parser.lane(layout)?);
            }
            Ok(())
        })?;
        let due = element_count(&tensor.dims).and_then(|count| count.checked_mul(layout.lanes));
        if due != Some(count) && (count > 0 || due.is_none()) {
            let due = due.map_or_else(|| "an impossible number of".to_owned(), |due| due.to_string());
            return Err(self.cursor.error_at(position, format!("{count} values where the shape asks for {due}")));
        }
        if layout.kind != Kind::Text && due == Some(count) {
            tensor.raw_data = Some(packer.finish());
        }
        Ok(())
    }

    /// Gives a tensor without data generated data, seeded by its name or, where it has none, by `owner`.
    pub(super) fn complete(
        &mut self,
        tensor: &mut TensorProto,
        remark: Remark,
        owner: &str,
        position: usize,
    ) -> Result<(), ParseError> {
        tensor.name = remark.name.or(tensor.name.take());
        let has_data = tensor.raw_data.is_some() || !tensor.string_data.is_empty();
        let Some(data_type) = tensor.data_type.and_then(DataType::from_number) else { return Ok(()) };
        if has_data || tensor.data_location == Some(EXTERNAL) {
            return Ok(());
        }
        let count = self.count_to_fill(data_type, &tensor.dims, position)?;
        if data_type == DataType::String {
            tensor.string_data = (0..count).map(|index| index.to_string().into()).collect();
            return Ok(());
        }
        let layout = Layout::of(data_type);
        let name = tensor.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(owner);
        let fill = remark.fill.unwrap_or(Fill::Default);
        tensor.raw_data = Some(fill.raw_data(layout, count * layout.lanes, name));
        Ok(())
    }

    /// The number of elements to generate, unless that takes too much memory.
    fn count_to_fill(&mut self, data_type: DataType, dims: &[i64], position: usize) -> Result<usize, ParseError> {
        let count = element_count(dims).ok_or_else(|| self.cursor.error_at(position, "impossible shape"))?;
        let cost = if data_type == DataType::String { count.saturating_mul(STRING_COST) } else { count };
        self.filled = self.filled.saturating_add(cost);
        if cost > LARGEST_FILL || self.filled > LARGEST_TOTAL_FILL {
            let limits = format!("at most {LARGEST_FILL} elements a tensor and {LARGEST_TOTAL_FILL} in all");
            return Err(self.cursor.error_at(position, format!("too large to fill, {limits}")));
        }
        Ok(count)
    }

    /// One number. 16-bit floats are given by their bits, as an integer, or by their value, with a point.
    fn lane(&mut self, layout: Layout) -> Result<u64, ParseError> {
        match (layout.kind, self.cursor.peek()) {
            (Kind::Half, Token::Float(_) | Token::Word(_)) => {
                Ok(u64::from(half::f16::from_f32(self.float()?).to_bits()))
            }
            (Kind::Brain, Token::Float(_) | Token::Word(_)) => {
                Ok(u64::from(half::bf16::from_f32(self.float()?).to_bits()))
            }
            (Kind::Single, _) => Ok(u64::from(self.float()?.to_bits())),
            (Kind::Double, _) => Ok(self.double()?.to_bits()),
            _ => self.integer_lane(layout),
        }
    }

    fn integer_lane(&mut self, layout: Layout) -> Result<u64, ParseError> {
        let Token::Integer(digits) = *self.cursor.peek() else { return Err(self.cursor.expected("an integer")) };
        let (least, greatest) = layout.integer_range();
        let value = digits.parse().ok().filter(|value| (least..=greatest).contains(value));
        let value: i128 =
            value.ok_or_else(|| self.cursor.error(format!("`{digits}` is not in {least} to {greatest}")))?;
        self.cursor.advance()?;
        Ok(value as u64)
    }

    pub(super) fn float(&mut self) -> Result<f32, ParseError> {
        let literal = self.number()?;
        let value = literal.parse::<f32>().ok().filter(|value| is_honest(literal, f64::from(*value)));
        let value = value.ok_or_else(|| self.cursor.error(format!("`{literal}` is no float")))?;
        self.cursor.advance()?;
        Ok(value)
    }

    fn double(&mut self) -> Result<f64, ParseError> {
        let literal = self.number()?;
        let value = literal.parse::<f64>().ok().filter(|value| is_honest(literal, *value));
        let value = value.ok_or_else(|| self.cursor.error(format!("`{literal}` is no double")))?;
        self.cursor.advance()?;
        Ok(value)
    }

    /// The spelling of the next number.
    fn number(&self) -> Result<&'a str, ParseError> {
        match *self.cursor.peek() {
            Token::Integer(literal) | Token::Float(literal) => Ok(literal),
            Token::Word(word) if is_float_word(word) => Ok(word),
            _ => Err(self.cursor.expected("a number")),
        }
    }
}

/// Whether a literal that parses to infinity spells infinity, rather than a number that is too large.
fn is_honest(literal: &str, value: f64) -> bool {
    !value.is_infinite() || !literal.contains(|c: char| c.is_ascii_digit())
}
