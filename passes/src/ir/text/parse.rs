//! The parser: models, functions, graphs, nodes. Attributes and tensors are parsed in separate files.

use super::fill::Fill;
use super::lex::{Cursor, ParseError, Token};
use super::spell;
use crate::ir::{
    FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    ValueInfoProto,
};

/// Deepest nesting of graphs and types: each level takes stack.
pub(super) const DEEPEST: usize = 32;

/// The contents of a comment about the item before it.
#[derive(Default)]
pub(super) struct Remark {
    /// The full name, where the syntax allows only a plain one.
    pub(super) name: Option<String>,
    /// How to generate the data.
    pub(super) fill: Option<Fill>,
}

/// The parser's state.
pub(super) struct Parser<'a> {
    pub(super) cursor: Cursor<'a>,
    depth: usize,
    /// Elements generated so far.
    pub(super) filled: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, ParseError> {
        Ok(Self { cursor: Cursor::new(text)?, depth: 0, filled: 0 })
    }

    pub(super) fn model(&mut self) -> Result<ModelProto, ParseError> {
        let mut model = ModelProto::default();
        if self.cursor.accept('<')? {
            self.list('>', |parser| parser.model_property(&mut model))?;
        }
        model.graph = Some(self.graph()?);
        while *self.cursor.peek() != Token::End {
            model.functions.push(self.function()?);
        }
        Ok(model)
    }

    fn model_property(&mut self, model: &mut ModelProto) -> Result<(), ParseError> {
        let position = self.cursor.position();
        let key = self.cursor.word("a property of the model")?;
        self.cursor.expect(':')?;
        match key {
            "ir_version" => model.ir_version = Some(self.cursor.integer("an IR version")?),
            "model_version" => model.model_version = Some(self.cursor.integer("a model version")?),
            "opset_import" => model.opset_import = self.opsets()?,
            "producer_name" => model.producer_name = Some(self.cursor.text("a string")?),
            "producer_version" => model.producer_version = Some(self.cursor.text("a string")?),
            "domain" => model.domain = Some(self.cursor.text("a string")?),
            "doc_string" => model.doc_string = Some(self.cursor.text("a string")?),
            "metadata_props" => {
                self.cursor.expect('[')?;
                model.metadata_props = self.entries()?;
            }
            _ => return Err(self.cursor.error_at(position, format!("`{key}` is no property of a model"))),
        }
        Ok(())
    }

    fn opsets(&mut self) -> Result<Vec<OperatorSetIdProto>, ParseError> {
        self.cursor.expect('[')?;
        let mut opsets = Vec::new();
        self.list(']', |parser| {
            let domain = Some(parser.cursor.text("a domain")?);
            parser.cursor.expect(':')?;
            opsets.push(OperatorSetIdProto { domain, version: Some(parser.cursor.integer("a version")?) });
            Ok(())
        })?;
        Ok(opsets)
    }

    /// Keys and values up to `]`.
    pub(super) fn entries(&mut self) -> Result<Vec<StringStringEntryProto>, ParseError> {
        let mut entries = Vec::new();
        self.list(']', |parser| {
            let key = Some(parser.cursor.text("a key")?);
            parser.cursor.expect(':')?;
            entries.push(StringStringEntryProto { key, value: Some(parser.cursor.text("a value")?) });
            Ok(())
        })?;
        Ok(entries)
    }

    fn function(&mut self) -> Result<FunctionProto, ParseError> {
        let mut function = FunctionProto::default();
        if self.cursor.accept('<')? {
            self.list('>', |parser| parser.function_property(&mut function))?;
        }
        let name = self.cursor.name("the name of a function")?;
        if self.cursor.accept('<')? {
            self.list('>', |parser| parser.function_attribute(&mut function, &name))?;
        }
        function.name = Some(name);
        function.input = self.function_values(&mut function.value_info)?;
        self.arrow()?;
        function.output = self.function_values(&mut function.value_info)?;
        if self.cursor.accept('<')? {
            self.list('>', |parser| {
                function.value_info.push(parser.value()?);
                Ok(())
            })?;
        }
        function.node = self.nodes()?;
        Ok(function)
    }

    fn function_property(&mut self, function: &mut FunctionProto) -> Result<(), ParseError> {
        let position = self.cursor.position();
        let key = self.cursor.word("a property of the function")?;
        self.cursor.expect(':')?;
        match key {
            "opset_import" => function.opset_import = self.opsets()?,
            "domain" => function.domain = Some(self.cursor.text("a string")?),
            "overload" => function.overload = Some(self.cursor.text("a string")?),
            "doc_string" => function.doc_string = Some(self.cursor.text("a string")?),
            _ => return Err(self.cursor.error_at(position, format!("`{key}` is no property of a function"))),
        }
        Ok(())
    }

    /// The name of an attribute, or an attribute with its default.
    fn function_attribute(&mut self, function: &mut FunctionProto, owner: &str) -> Result<(), ParseError> {
        let name = self.cursor.name("an attribute")?;
        if matches!(self.cursor.peek(), Token::Mark(':' | '=')) {
            function.attribute_proto.push(self.attribute(name, owner)?);
        } else {
            function.attribute.push(name);
        }
        Ok(())
    }

    /// Names in parentheses; a type before a name makes it a `value_info` too.
    fn function_values(&mut self, value_info: &mut Vec<ValueInfoProto>) -> Result<Vec<String>, ParseError> {
        let mut names = Vec::new();
        self.cursor.expect('(')?;
        self.list(')', |parser| {
            let value = parser.value()?;
            names.push(value.name.clone().unwrap_or_default());
            value_info.extend(Some(value).filter(|value| value.r#type.is_some()));
            Ok(())
        })?;
        Ok(names)
    }

    pub(super) fn graph(&mut self) -> Result<GraphProto, ParseError> {
        self.nested(|parser| {
            let mut graph = GraphProto { name: Some(parser.cursor.name("the name of a graph")?), ..Default::default() };
            if parser.cursor.accept('(')? {
                parser.list(')', |parser| {
                    let input = parser.value()?;
                    if parser.cursor.accept('=')? {
                        let default = parser.initializer(&input)?;
                        graph.initializer.push(default);
                    }
                    graph.input.push(input);
                    Ok(())
                })?;
            }
            parser.arrow()?;
            parser.cursor.expect('(')?;
            parser.list(')', |parser| {
                graph.output.push(parser.value()?);
                Ok(())
            })?;
            graph.name = parser.remark()?.name.or(graph.name.take());
            if parser.cursor.accept('<')? {
                parser.list('>', |parser| parser.declaration(&mut graph))?;
            }
            graph.node = parser.nodes()?;
            Ok(graph)
        })
    }

    /// A value's type, or an initializer: with data, or with a comment that says how to generate data.
    fn declaration(&mut self, graph: &mut GraphProto) -> Result<(), ParseError> {
        let value = self.value()?;
        let is_initializer = self.cursor.accept('=')? || self.remark_behind()?.fill.is_some();
        if is_initializer {
            let initializer = self.initializer(&value)?;
            graph.initializer.push(initializer);
        } else {
            graph.value_info.push(value);
        }
        Ok(())
    }

    fn initializer(&mut self, value: &ValueInfoProto) -> Result<TensorProto, ParseError> {
        let position = self.cursor.position();
        let mut tensor = self.tensor_data(value.r#type.as_ref())?;
        tensor.name.clone_from(&value.name);
        let remark = self.remark_behind()?;
        self.complete(&mut tensor, remark, "", position)?;
        Ok(tensor)
    }

    fn value(&mut self) -> Result<ValueInfoProto, ParseError> {
        let is_typed = matches!(self.cursor.peek(), Token::Word(word) if spell::is_type_word(word));
        let r#type = if is_typed { Some(self.type_proto()?) } else { None };
        Ok(ValueInfoProto { r#type, name: Some(self.cursor.name("the name of a value")?), ..Default::default() })
    }

    fn nodes(&mut self) -> Result<Vec<NodeProto>, ParseError> {
        self.cursor.expect('{')?;
        let mut nodes = Vec::new();
        while !self.cursor.accept('}')? {
            nodes.push(self.node()?);
        }
        Ok(nodes)
    }

    fn node(&mut self) -> Result<NodeProto, ParseError> {
        let mut node = NodeProto::default();
        if self.cursor.accept('[')? {
            let is_empty = *self.cursor.peek() == Token::Mark(']');
            node.name = Some(if is_empty { String::new() } else { self.cursor.name("the name of a node")? });
            self.cursor.expect(']')?;
        }
        node.output = self.names()?;
        self.cursor.expect('=')?;
        let mut path = vec![self.cursor.name("an operator")?];
        while self.cursor.accept('.')? {
            path.push(self.cursor.name("an operator")?);
        }
        node.op_type = path.pop();
        node.domain = (!path.is_empty()).then(|| path.join("."));
        if self.cursor.accept(':')? {
            node.overload = Some(self.cursor.name("an overload")?);
        }
        let owner = node.output.first().cloned().unwrap_or_default();
        node.attribute = self.attributes(&owner)?;
        self.cursor.expect('(')?;
        node.input = self.names()?;
        self.cursor.expect(')')?;
        if node.attribute.is_empty() {
            node.attribute = self.attributes(&owner)?;
        }
        Ok(node)
    }

    /// Names, of which any may be empty: `a, "", b` or `a, , b`. A comma at the end adds none.
    fn names(&mut self) -> Result<Vec<String>, ParseError> {
        let mut names = Vec::new();
        loop {
            match self.cursor.peek() {
                Token::Mark(',') => names.push(String::new()),
                Token::Word(_) | Token::Text(_) => names.push(self.cursor.name("a name")?),
                _ => return Ok(names),
            }
            if !self.cursor.accept(',')? {
                return Ok(names);
            }
        }
    }

    /// Entries separated by commas up to `close`, possibly none.
    pub(super) fn list(
        &mut self,
        close: char,
        mut entry: impl FnMut(&mut Self) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        if self.cursor.accept(close)? {
            return Ok(());
        }
        loop {
            entry(self)?;
            if !self.cursor.accept(',')? {
                break;
            }
        }
        if self.cursor.accept(close)? { Ok(()) } else { Err(self.cursor.expected(&format!("`,` or `{close}`"))) }
    }

    /// Parses an item that may nest in itself.
    pub(super) fn nested<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, ParseError>,
    ) -> Result<T, ParseError> {
        if self.depth == DEEPEST {
            return Err(self.cursor.error(format!("nested more than {DEEPEST} levels deep")));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn arrow(&mut self) -> Result<(), ParseError> {
        if *self.cursor.peek() != Token::Arrow {
            return Err(self.cursor.expected("`=>`"));
        }
        self.cursor.advance().map(drop)
    }

    /// The contents of the next comment on the line.
    fn remark(&self) -> Result<Remark, ParseError> {
        match self.cursor.trailing_comment()? {
            Some(comment) => Remark::parse(comment),
            None => Ok(Remark::default()),
        }
    }

    /// The contents of the next comment, which may follow the comma between two entries.
    pub(super) fn remark_behind(&self) -> Result<Remark, ParseError> {
        let mut behind = self.cursor.clone();
        if self.cursor.trailing_comment()?.is_none() {
            behind.accept(',')?;
        }
        behind.trailing_comment()?.map_or_else(|| Ok(Remark::default()), Remark::parse)
    }
}

impl Remark {
    /// `name "..."`, `fill ...`, both or neither; the rest of the comment is for human readers.
    fn parse(mut comment: Cursor<'_>) -> Result<Self, ParseError> {
        let mut remark = Self::default();
        if *comment.peek() == Token::Word("name") {
            comment.advance()?;
            if !matches!(comment.peek(), Token::Text(_)) {
                return Ok(remark);
            }
            remark.name = Some(comment.text("a name")?);
        }
        if *comment.peek() == Token::Word("fill") {
            comment.advance()?;
            remark.fill = Some(Fill::parse(&mut comment)?);
        }
        Ok(remark)
    }
}
