//! Attributes, as the parser reads them.

use bytes::Bytes;

use super::lex::{ParseError, Token, is_float_word};
use super::parse::Parser;
use super::print_attribute::ATTRIBUTE_TYPES;
use super::spell;
use crate::ir::{AttributeProto, AttributeType, GraphProto, TensorProto, TypeProto};

/// The value of an attribute, or of one entry of a list.
enum Value {
    Float(f32),
    Int(i64),
    Text(Bytes),
    Tensor(TensorProto),
    Graph(GraphProto),
    Type(TypeProto),
}

impl Value {
    fn attribute_type(&self) -> AttributeType {
        match self {
            Self::Float(_) => AttributeType::Float,
            Self::Int(_) => AttributeType::Int,
            Self::Text(_) => AttributeType::String,
            Self::Tensor(_) => AttributeType::Tensor,
            Self::Graph(_) => AttributeType::Graph,
            Self::Type(_) => AttributeType::TypeProto,
        }
    }

    fn store(self, attribute: &mut AttributeProto) {
        match self {
            Self::Float(value) => attribute.f = Some(value),
            Self::Int(value) => attribute.i = Some(value),
            Self::Text(value) => attribute.s = Some(value),
            Self::Tensor(value) => attribute.t = Some(value),
            Self::Graph(value) => attribute.g = Some(value),
            Self::Type(value) => attribute.tp = Some(value),
        }
    }

    fn append(self, attribute: &mut AttributeProto) {
        match self {
            Self::Float(value) => attribute.floats.push(value),
            Self::Int(value) => attribute.ints.push(value),
            Self::Text(value) => attribute.strings.push(value),
            Self::Tensor(value) => attribute.tensors.push(value),
            Self::Graph(value) => attribute.graphs.push(value),
            Self::Type(value) => attribute.type_protos.push(value),
        }
    }
}

/// The list types and the types of their entries.
const LISTS: [(AttributeType, AttributeType); 6] = [
    (AttributeType::Floats, AttributeType::Float),
    (AttributeType::Ints, AttributeType::Int),
    (AttributeType::Strings, AttributeType::String),
    (AttributeType::Tensors, AttributeType::Tensor),
    (AttributeType::Graphs, AttributeType::Graph),
    (AttributeType::TypeProtos, AttributeType::TypeProto),
];

impl Parser<'_> {
    /// Attributes in angle brackets, if the next token opens them. `owner` seeds tensors with neither name nor data.
    pub(super) fn attributes(&mut self, owner: &str) -> Result<Vec<AttributeProto>, ParseError> {
        let mut attributes = Vec::new();
        if self.cursor.accept('<')? {
            self.list('>', |parser| {
                let name = parser.cursor.name("the name of an attribute")?;
                attributes.push(parser.attribute(name, owner)?);
                Ok(())
            })?;
        }
        Ok(attributes)
    }

    /// Type and value, behind the name of an attribute.
    pub(super) fn attribute(&mut self, name: String, owner: &str) -> Result<AttributeProto, ParseError> {
        let seed = format!("{owner}.{name}");
        let mut attribute = AttributeProto { name: Some(name), ..Default::default() };
        let stated = if self.cursor.accept(':')? { Some(self.attribute_type()?) } else { None };
        attribute.r#type = stated.map(i32::from);
        self.cursor.expect('=')?;
        if self.cursor.accept('@')? {
            attribute.ref_attr_name = Some(self.cursor.name("an attribute of the function")?);
        } else if self.cursor.accept('[')? {
            self.attribute_list(&mut attribute, stated, &seed)?;
        } else {
            let value = self.attribute_value(stated, &seed)?;
            attribute.r#type = Some(value.attribute_type().into());
            value.store(&mut attribute);
        }
        Ok(attribute)
    }

    fn attribute_type(&mut self) -> Result<AttributeType, ParseError> {
        let Token::Word(word) = *self.cursor.peek() else { return Err(self.cursor.expected("an attribute type")) };
        let known = ATTRIBUTE_TYPES.iter().find(|(_, name)| *name == word);
        let Some((found, _)) = known else { return Err(self.cursor.expected("an attribute type")) };
        self.cursor.advance()?;
        Ok(*found)
    }

    fn attribute_list(
        &mut self,
        attribute: &mut AttributeProto,
        stated: Option<AttributeType>,
        seed: &str,
    ) -> Result<(), ParseError> {
        let mut list_type = match stated {
            Some(stated) => Some(
                LISTS
                    .into_iter()
                    .find(|(list, _)| *list == stated)
                    .ok_or_else(|| self.cursor.error("not a list type"))?,
            ),
            None => None,
        };
        let start = self.cursor.position();
        let mut index = 0;
        self.list(']', |parser| {
            let value = parser.attribute_value(list_type.map(|(_, entry)| entry), &format!("{seed}.{index}"))?;
            let entry_type = value.attribute_type();
            list_type = list_type.or_else(|| LISTS.into_iter().find(|(_, entry)| *entry == entry_type));
            value.append(attribute);
            index += 1;
            Ok(())
        })?;
        let Some((list, _)) = list_type else {
            return Err(self.cursor.error_at(start, "an empty list needs a type, as in `pads: ints = []`"));
        };
        attribute.r#type = Some(list.into());
        Ok(())
    }

    /// A value; an integer is a float where one is expected.
    fn attribute_value(&mut self, expected: Option<AttributeType>, seed: &str) -> Result<Value, ParseError> {
        let position = self.cursor.position();
        let value = match *self.cursor.peek() {
            Token::Integer(_) if expected != Some(AttributeType::Float) => {
                Value::Int(self.cursor.integer("an integer")?)
            }
            Token::Integer(_) | Token::Float(_) => Value::Float(self.float()?),
            Token::Text(_) => Value::Text(self.cursor.bytes("a string")?.into()),
            Token::Word(word) if spell::is_type_word(word) => self.tensor_or_type(seed)?,
            Token::Word(word) if is_float_word(word) => Value::Float(self.float()?),
            Token::Word(_) => Value::Graph(self.graph()?),
            _ => return Err(self.cursor.expected("the value of an attribute")),
        };
        match expected.filter(|&expected| expected != value.attribute_type()) {
            Some(_) => Err(self.cursor.error_at(position, "the value is not of the attribute's type")),
            None => Ok(value),
        }
    }

    fn tensor_or_type(&mut self, seed: &str) -> Result<Value, ParseError> {
        let position = self.cursor.position();
        let type_proto = self.type_proto()?;
        if !matches!(self.cursor.peek(), Token::Mark('{' | '=') | Token::Word(_)) {
            return Ok(Value::Type(type_proto));
        }
        let is_named = matches!(self.cursor.peek(), Token::Word(_));
        let name = if is_named { Some(self.cursor.name("the name of a tensor")?) } else { None };
        self.cursor.accept('=')?;
        let mut tensor = self.tensor_data(Some(&type_proto))?;
        tensor.name = name;
        let remark = self.remark_behind()?;
        self.complete(&mut tensor, remark, seed, position)?;
        Ok(Value::Tensor(tensor))
    }
}
