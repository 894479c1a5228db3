//! JSON forms: a message decoded at the replica that handles it, its answer encoded there.

use std::{any::Any, marker::PhantomData, sync::Arc};

use actix::{Actor, Handler};
use actix_web::http::Method;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    actors::{
        context::ReplicaContext,
        execute::{Form, Plain},
    },
    backend::{Backend, Batch},
    call::{Answer, Call, Refusal, Request},
    error::ServeError,
    http_call::{HttpAnswer, HttpCall, WantedHeaders},
    meta::Meta,
    port::Port,
    routing::shadows::Copying,
};

const JSON: &str = "application/json";

/// A JSON message as the body or query of an HTTP request.
struct Json<M>(PhantomData<M>);

impl<M> Form for Json<M>
where
    M: Request + DeserializeOwned,
    M::Response: Serialize,
{
    type Outer = HttpCall;
    type Inner = M;

    fn open(call: HttpCall) -> Result<M, ServeError> {
        decode(&call)
    }

    fn close(result: M::Response) -> Result<HttpAnswer, ServeError> {
        let body = serde_json::to_vec(&result).map_err(|e| {
            ServeError::backend(500, "answer_not_json", format!("the answer has no JSON form: {e}"))
        })?;
        Ok(HttpAnswer::ok(JSON, body))
    }
}

/// JSON has no NaN and no infinity, so bodies cannot hold them; in a query, Rust would read them as floats. Such
/// a text passes only where any other text would: where the message wants a string.
fn refuse_non_finite<M: DeserializeOwned>(pairs: &[(String, String)]) -> Result<(), ServeError> {
    for (i, (name, text)) in pairs.iter().enumerate() {
        if text.parse::<f64>().is_ok_and(|number| !number.is_finite()) {
            let mut other = pairs.to_vec();
            other[i].1 = "text".into();
            let other = serde_urlencoded::to_string(&other).unwrap_or_default();
            if serde_urlencoded::from_str::<M>(&other).is_err() {
                return Err(ServeError::bad_request(format!("`{name}`: a number must be finite")));
            }
        }
    }
    Ok(())
}

/// See [`Backend::json`] for what is read where.
fn decode<M: DeserializeOwned>(call: &HttpCall) -> Result<M, ServeError> {
    if matches!(call.method, Method::GET | Method::HEAD | Method::DELETE) && call.body.is_empty() {
        let mut pairs: Vec<(String, String)> = serde_urlencoded::from_str(call.query())
            .map_err(|e| ServeError::bad_request(format!("the query does not decode: {e}")))?;
        pairs.extend(call.params.iter().map(|(name, value)| (name.to_string(), value.clone())));
        if pairs.is_empty()
            && let Ok(empty) = serde_json::from_value(Value::Null)
        {
            return Ok(empty);
        }
        let query = serde_urlencoded::to_string(&pairs).unwrap_or_default();
        let msg = serde_urlencoded::from_str(&query)
            .map_err(|e| ServeError::bad_request(format!("the query does not decode: {e}")))?;
        refuse_non_finite::<M>(&pairs)?;
        return Ok(msg);
    }
    let body: &[u8] = if call.body.is_empty() { b"null" } else { &call.body };
    let refused = |e: serde_json::Error| {
        let what = if call.body.is_empty() { "the body is empty" } else { "the body does not decode" };
        ServeError::bad_request(format!("{what}: {e}"))
    };
    if call.params.is_empty() {
        return serde_json::from_slice(body).map_err(refused);
    }
    let mut value: Value = serde_json::from_slice(body).map_err(refused)?;
    if value.is_null() {
        value = Value::Object(serde_json::Map::new());
    }
    let Value::Object(fields) = &mut value else {
        return Err(ServeError::bad_request(
            "the body must be a JSON object, which the route's parameters join",
        ));
    };
    for (name, text) in &call.params {
        fields.insert(name.to_string(), Value::String(text.clone()));
    }
    // A parameter is text; where the message wants a number or a truth value, it is read as one.
    serde_json::from_value(value.clone()).or_else(|as_text| {
        if let Value::Object(fields) = &mut value {
            for (name, text) in &call.params {
                if let Ok(literal @ (Value::Number(_) | Value::Bool(_))) = serde_json::from_str(text) {
                    fields.insert(name.to_string(), literal);
                }
            }
        }
        serde_json::from_value(value).map_err(|_| refused(as_text))
    })
}

/// Several messages behind one route; the header `X-SERVE-CALL-METHOD` names which, the first is the default.
struct MethodPort(Vec<(Box<str>, Arc<dyn Port<HttpCall>>)>);

impl MethodPort {
    fn pick(&self, call: &HttpCall) -> Result<&dyn Port<HttpCall>, ServeError> {
        let found = match &call.call_method {
            None => self.0.first(),
            Some(wanted) => self.0.iter().find(|(name, _)| name == wanted),
        };
        found.map(|(_, port)| &**port).ok_or_else(|| {
            let known: Vec<_> = self.0.iter().map(|(name, _)| &**name).collect();
            ServeError::bad_request(format!(
                "there is no call method {:?}; there is: {}",
                call.call_method.as_deref().unwrap_or(""),
                known.join(", ")
            ))
        })
    }
}

impl Port<HttpCall> for MethodPort {
    fn deliver(&self, call: Call<HttpCall>, admitted: bool) -> Result<(), Refusal<HttpCall>> {
        match self.pick(&call.msg) {
            Ok(port) => port.deliver(call, admitted),
            Err(why) => {
                let Call { msg, meta, reply } = call;
                Err(Refusal { msg, meta, reply: Some(reply), why })
            }
        }
    }

    fn call(&self, msg: HttpCall, meta: Meta) -> Answer<HttpCall> {
        match self.pick(&msg) {
            Ok(port) => port.call(msg, meta),
            Err(why) => Answer::Now(Err(why)),
        }
    }

    fn load(&self) -> usize {
        self.0.first().map_or(0, |(_, port)| port.load())
    }

    fn concurrency(&self) -> usize {
        self.0.first().map_or(0, |(_, port)| port.concurrency())
    }

    fn thread(&self) -> u64 {
        self.0.first().map_or(0, |(_, port)| port.thread())
    }
}

/// Joins the HTTP forms of a backend behind one port.
pub(crate) fn join(ports: Vec<(Box<str>, Box<dyn Any + Send + Sync>)>) -> Box<dyn Any + Send + Sync> {
    let ports = ports
        .into_iter()
        .filter_map(|(name, port)| port.downcast::<Arc<dyn Port<HttpCall>>>().ok().map(|port| (name, *port)));
    Box::new(Arc::new(MethodPort(ports.collect())) as Arc<dyn Port<HttpCall>>)
}

/// `Classify` in `app::Classify` becomes `classify`, `TopK<u8>` becomes `top_k`.
fn method_name<M>() -> String {
    let path = std::any::type_name::<M>();
    let path = path.split('<').next().unwrap_or(path);
    let name = path.rsplit("::").next().unwrap_or(path);
    let mut out = String::with_capacity(name.len() + 4);
    for (i, c) in name.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

impl<A: Actor<Context = ReplicaContext<A>>> Backend<A> {
    /// It takes `M` through handles and as JSON over HTTP. Of several such messages the header
    /// `X-SERVE-CALL-METHOD` names one by its type in snake case; without it the first is meant.
    ///
    /// The message of a GET, HEAD or DELETE without a body is read from the query, `?a=1&b=2`, that of all others
    /// from the body, as JSON. Where the route has parameters, `/items/{id}`, they join in as fields of the
    /// message.
    ///
    /// JSON has no NaN and no infinity: a message that has one where a number is wanted, be it in the query or
    /// in a route parameter, is refused with 400. In an answer, serde writes such a float as `null`.
    pub fn json<M>(self) -> Self
    where
        A: Handler<M>,
        M: Request + DeserializeOwned,
        M::Response: Serialize,
    {
        self.handles::<M>().copied(Copying::http()).form::<Json<M>>(&method_name::<M>(), join)
    }

    /// It takes `M` through handles and as JSON over HTTP, and handles them only in batches; the batch size is
    /// 1 unless `max_batch_size` is set.
    pub fn json_batched<M>(self) -> Self
    where
        A: Handler<Batch<M>>,
        M: Request + DeserializeOwned,
        M::Response: Serialize,
    {
        self.batched::<M>().copied(Copying::http()).batch_form::<Json<M>>(&method_name::<M>(), join)
    }

    /// It takes the HTTP request itself, with all its headers, and answers with status, headers and body.
    pub fn raw(mut self) -> Self
    where
        A: Handler<HttpCall>,
    {
        self.wanted_headers = WantedHeaders::All;
        self.copied(Copying::http()).form::<Plain<HttpCall>>("http_call", join)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Item {
        id: u32,
        name: String,
    }

    fn call(method: Method, path: &str, body: &str) -> HttpCall {
        HttpCall::new(method, path, body.as_bytes().to_vec())
    }

    #[test]
    fn a_query_and_a_body_decode_into_the_same_message() {
        let want = Item { id: 7, name: "a b".into() };
        assert_eq!(decode::<Item>(&call(Method::GET, "/x?id=7&name=a%20b", "")).unwrap(), want);
        assert_eq!(decode::<Item>(&call(Method::POST, "/x", r#"{"id":7,"name":"a b"}"#)).unwrap(), want);
    }

    #[test]
    fn a_float_that_is_none_is_refused_and_a_name_that_looks_like_one_is_not() {
        #[derive(Debug, Deserialize)]
        struct Point {
            x: f64,
        }
        for text in ["NaN", "-inf", "Infinity", "1e999"] {
            let error = decode::<Point>(&call(Method::GET, &format!("/p?x={text}"), "")).unwrap_err();
            assert_eq!(error.code(), "bad_request");
            let mut c = call(Method::GET, "/p", "");
            c.params.push(("x".into(), text.into()));
            assert!(decode::<Point>(&c).is_err());
            let item = decode::<Item>(&call(Method::GET, &format!("/p?id=1&name={text}"), "")).unwrap();
            assert_eq!(item.name, text);
        }
        assert!(decode::<Point>(&call(Method::GET, "/p?x=1.5", "")).is_ok_and(|point| point.x > 1.0));
    }

    #[test]
    fn route_parameters_join_in_as_text_or_number() {
        let mut c = call(Method::POST, "/x", r#"{"name":"n"}"#);
        c.params.push(("id".into(), "7".into()));
        assert_eq!(decode::<Item>(&c).unwrap(), Item { id: 7, name: "n".into() });
        let mut c = call(Method::GET, "/x?name=7", "");
        c.params.push(("id".into(), "9".into()));
        assert_eq!(decode::<Item>(&c).unwrap(), Item { id: 9, name: "7".into() });
    }

    #[test]
    fn what_does_not_decode_is_a_bad_request_that_says_where() {
        for (body, says) in
            [("{", "EOF"), (r#"{"id":7}"#, "name"), ("", "empty"), (r#"{"id":-1,"name":""}"#, "u32")]
        {
            let error = decode::<Item>(&call(Method::POST, "/x", body)).unwrap_err();
            assert_eq!(error.code(), "bad_request");
            assert!(error.to_string().contains(says), "{body}: {error}");
        }
    }

    #[test]
    fn messages_are_named_by_their_type() {
        struct TopK;
        assert_eq!(method_name::<TopK>(), "top_k");
        assert_eq!(method_name::<Option<TopK>>(), "option");
    }
}
