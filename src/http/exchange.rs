//! One HTTP exchange: from an actix-web request to a call, and from an answer to a response.

use std::{cell::RefCell, collections::HashMap, future::Future, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        ConnectionType, Method, StatusCode,
        header::{HeaderMap, HeaderName},
    },
};
use bytes::Bytes;

use crate::{
    actors::controller::Office,
    error::ServeError,
    http::{
        ingress::CALL_METHOD_HEADER,
        request_id::{request_id, tell},
    },
    http_call::{HttpAnswer, HttpCall, ShardKeys, WantedHeaders},
    meta::{Meta, RequestId, ShardKey},
    metrics::{in_flight::Underway, registry::HttpKey, spread::Spread},
};

// As names, so that look-ups need not parse them.
static CALL_METHOD: HeaderName = HeaderName::from_static(CALL_METHOD_HEADER);
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// An error that becomes a response once the request id is known.
pub(crate) type Failure = Box<dyn FnOnce(Option<&str>) -> HttpResponse>;

/// Makes a request's answer under its id, which the response repeats; `failed` makes the errors' form.
pub(crate) async fn identified<F>(
    headers: &HeaderMap,
    failed: fn(ServeError) -> Failure,
    answer: impl FnOnce(RequestId) -> F,
) -> HttpResponse
where
    F: Future<Output = Result<HttpResponse, Failure>>,
{
    let (text, answered) = match request_id(headers) {
        Ok(id) => (id.to_string(), answer(id).await),
        // What is told then is one of ours.
        Err(error) => (RequestId::generate().to_string(), Err(failed(error))),
    };
    let mut response = answered.unwrap_or_else(|failure| failure(Some(&text)));
    tell(&mut response, text);
    response
}

/// The call that a request makes, with the headers that the backend wants.
pub(crate) fn call(
    request: &HttpRequest,
    params: Vec<(Arc<str>, String)>,
    wanted: WantedHeaders,
    body: Bytes,
) -> HttpCall {
    let headers = request.headers();
    HttpCall {
        method: request.method().clone(),
        uri: request.uri().clone(),
        params,
        headers: match wanted {
            WantedHeaders::None => HeaderMap::new(),
            WantedHeaders::Inference => inference_header(headers),
            WantedHeaders::All => headers.clone(),
        },
        call_method: text(headers, &CALL_METHOD).map(Into::into),
        body,
    }
}

fn inference_header(headers: &HeaderMap) -> HeaderMap {
    let mut wanted = HeaderMap::new();
    if let Some(length) = headers.get(json_length()) {
        wanted.insert(json_length(), length.clone());
    }
    wanted
}

/// The header that tells the length of the JSON part of an inference request or answer.
pub(crate) fn json_length() -> HeaderName {
    HeaderName::from_static("inference-header-content-length")
}

/// What travels with the call of a request.
pub(crate) fn meta(headers: &HeaderMap, request_id: RequestId, keys: &ShardKeys) -> Meta {
    Meta {
        trace: text(headers, &TRACEPARENT).filter(|t| t.len() <= crate::meta::ID_BYTES_MAX).map(Into::into),
        shard_key: keys.find(headers).map(ShardKey::new),
        ..Meta::of(request_id)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// An answer as a response.
pub(crate) fn response(answer: HttpAnswer) -> HttpResponse {
    let mut response = HttpResponse::build(answer.status);
    for header in answer.headers {
        response.append_header(header);
    }
    response.body(answer.body)
}

/// What every response of one worker thread passes on its way out: it is counted, and while the service shuts
/// down it closes its connection.
pub(crate) struct Exit {
    office: Arc<Office>,
    counts: RefCell<Counts>,
}

/// Counters by route, method and status; the latest one beside them, which mostly is the next one too.
#[derive(Default)]
struct Counts {
    latest: Option<(CountKey, Arc<Spread>)>,
    all: HashMap<CountKey, Counter>,
}

/// Address of the route's label, method, status: so that the registry's lock is taken once for each.
type CountKey = (usize, Method, StatusCode);

/// A counter beside the label whose address is in its key, which so is not used again.
type Counter = (Arc<str>, Arc<Spread>);

/// Counters remembered on one thread; routes that come and go must not pile up.
const COUNTS_MAX: usize = 4096;

impl Exit {
    pub(crate) fn new(office: Arc<Office>) -> Self {
        Self { office, counts: RefCell::default() }
    }

    /// A request has come: what keeps the service from ending before it is answered.
    pub(crate) fn underway(&self) -> Underway {
        self.office.exchanges.begin()
    }

    /// Lets a response out that was made for a request on the route with this label.
    pub(crate) fn pass(&self, label: &Arc<str>, method: &Method, mut response: HttpResponse) -> HttpResponse {
        if self.office.directory.closing() {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        let status = response.status();
        let mut counts = self.counts.borrow_mut();
        let key = (Arc::as_ptr(label).cast::<u8>().addr(), method.clone(), status);
        if let Some((latest, count)) = &counts.latest
            && *latest == key
        {
            count.add();
            return response;
        }
        if counts.all.len() >= COUNTS_MAX {
            // The latest one's label goes with them.
            *counts = Counts::default();
        }
        let fresh = || {
            let count = self.office.metrics.registry.http(HttpKey::new(label, method, status));
            (Arc::clone(label), count)
        };
        let (_, count) = counts.all.entry(key.clone()).or_insert_with(fresh);
        count.add();
        let count = Arc::clone(count);
        counts.latest = Some((key, count));
        response
    }
}
