//! Answers of models: their tensors are compared, not how they are written or who says so.

use actix::{Actor, Handler};
use greenroom::{
    Backend, BackendConfig, Compare, Endpoint, HttpAnswer, HttpCall, Infer, OnnxModel, ReplicaContext, Serve,
    ServeError, Tensor, TensorData,
    oip::{Form, InferRequest, InferResponse},
    testing::Stage,
};

use super::{after, compare};
use crate::digits::{held_out, model, request};

/// The digits, with something added to the fourth probability, as JSON or binary.
struct Perturbed {
    net: OnnxModel,
    by: f32,
    form: Form,
}

impl Actor for Perturbed {
    type Context = ReplicaContext<Self>;
}

impl Handler<HttpCall> for Perturbed {
    type Result = Result<HttpAnswer, ServeError>;
    fn handle(&mut self, call: HttpCall, _: &mut Self::Context) -> Self::Result {
        let inputs = InferRequest::decode(&call.body, None)?.inputs;
        let perturb = |output: Tensor| {
            let (name, shape) = (output.name().to_owned(), output.shape().to_vec());
            match output.into_data() {
                TensorData::Fp32(mut values) => {
                    values[3] += self.by;
                    Tensor::new(name, shape, values)
                }
                data => Tensor::new(name, shape, data),
            }
        };
        let outputs = self.net.run(&inputs)?.into_iter().map(perturb).collect::<Result<_, _>>()?;
        let answer = InferResponse { model_name: "perturbed".into(), outputs, ..Default::default() };
        let encoded = answer.encode(|_| self.form)?;
        let answer = HttpAnswer::ok("application/octet-stream", encoded.body);
        Ok(match encoded.header_length {
            None => answer,
            Some(bytes) => {
                answer.header(greenroom::oip::HEADER_LENGTH.to_lowercase().parse().unwrap(), bytes.into())
            }
        })
    }
}

/// The digits behind `/digits`.
async fn digits(serve: &Serve) {
    serve.create_backend("now", Backend::onnx(model()), BackendConfig::default()).await.unwrap();
    serve.create_endpoint("shop", Endpoint::new("now").route("/digits").methods(["POST"])).await.unwrap();
}

/// Posts one image.
async fn post(serve: &Serve) {
    let app = actix_web::test::init_service(actix_web::App::new().configure(serve.ingress())).await;
    let body = request(&held_out().x[..1]);
    let request = actix_web::test::TestRequest::post().uri("/digits").set_payload(body).to_request();
    assert!(actix_web::test::call_service(&app, request).await.status().is_success());
}

#[actix_web::test]
async fn a_model_agrees_with_itself_under_another_name_however_it_is_asked() {
    let stage = Stage::new().await.unwrap();
    digits(stage.serve()).await;
    stage.serve().create_backend("next", Backend::onnx(model()), BackendConfig::default()).await.unwrap();
    compare(stage.serve(), Compare::exact()).await;
    post(stage.serve()).await;
    assert_eq!(after(stage.serve(), 1).await.shadow.agreed, 1);
    let pixels = Tensor::new("input", [1, 64], held_out().x[0].clone()).unwrap();
    stage.serve().handle::<Infer>("shop").unwrap().call(Infer::new([pixels])).await.unwrap();
    assert_eq!(after(stage.serve(), 2).await.shadow.agreed, 2);
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_perturbed_answer_is_found_at_its_element_in_json_and_in_binary() {
    for form in [Form::Json, Form::Binary] {
        let stage = Stage::new().await.unwrap();
        digits(stage.serve()).await;
        let perturbed =
            Backend::new(move |_| Ok(Perturbed { net: OnnxModel::load(model(), 1)?, by: 0.125, form })).raw();
        stage.serve().create_backend("next", perturbed, BackendConfig::default()).await.unwrap();
        compare(stage.serve(), Compare::within(0.1, 0.0)).await;
        post(stage.serve()).await;
        let report = after(stage.serve(), 1).await;
        assert_eq!(report.shadow.differed, 1, "{report}");
        let pair = &report.sample[0];
        assert_eq!(pair.path, "outputs[1].data[3]");
        let number = |text: &str| text.parse::<f64>().unwrap();
        let apart = number(&pair.shadow.found) - number(&pair.primary.found);
        assert!((apart - 0.125).abs() < 1e-6, "{apart}");
        compare(stage.serve(), Compare::within(0.2, 0.0)).await;
        post(stage.serve()).await;
        assert_eq!(after(stage.serve(), 1).await.shadow.agreed, 1);
        stage.end().await.unwrap();
    }
}
