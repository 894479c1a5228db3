//! Any row of changes is admitted exactly: each is done if and only if a plain sum says that it fits.

use proptest::prelude::*;

use super::{config, cpus, create, scaled};

/// One change and to which of three backends.
#[derive(Clone, Debug)]
enum Change {
    Create(usize, u32, u32),
    Scale(usize, u32),
    Delete(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..3_usize, 0..5_u32, 0..15_000_u32).prop_map(|(which, n, parts)| Change::Create(which, n, parts)),
        (0..3_usize, 0..6_u32).prop_map(|(which, n)| Change::Scale(which, n)),
        (0..3_usize).prop_map(Change::Delete),
    ]
}

/// Does the changes and checks each against what a sum says: 30,000 ten-thousandths there are.
async fn exact(changes: Vec<Change>) {
    let serve = cpus(3.0).await;
    let mut made = [None::<(u32, u32)>; 3];
    for change in changes {
        let used =
            |made: &[Option<(u32, u32)>; 3]| made.iter().flatten().map(|(n, parts)| n * parts).sum::<u32>();
        let mut wanted = made;
        let done = match change {
            Change::Create(which, n, parts) => {
                if made[which].is_some() {
                    continue;
                }
                wanted[which] = Some((n, parts));
                create(&serve, ["a", "b", "c"][which], config(n, f64::from(parts) / 1e4)).await
            }
            Change::Scale(which, n) => {
                let Some((_, parts)) = made[which] else { continue };
                wanted[which] = Some((n, parts));
                serve.update_backend_config(["a", "b", "c"][which], scaled(n)).await
            }
            Change::Delete(which) => {
                if wanted[which].take().is_none() {
                    continue;
                }
                serve.delete_backend(["a", "b", "c"][which], false).await
            }
        };
        // A backend that shrinks stays within what it has, whatever the others do.
        let fits = used(&wanted) <= 30_000;
        assert_eq!(done.is_ok(), fits, "{change:?} {made:?} {done:?}");
        if fits {
            made = wanted;
        }
        let free = serve.status().capacity.free.num_cpus.unwrap().ten_thousandths();
        assert_eq!(free + u64::from(used(&made)), 30_000, "{change:?}");
        let there: u32 = serve.status().backends.iter().map(|backend| backend.replicas.len() as u32).sum();
        assert_eq!(there, made.iter().flatten().map(|(n, _)| n).sum::<u32>());
    }
    serve.shutdown().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn any_changes_are_admitted_exactly(changes in proptest::collection::vec(change(), 1..30)) {
        actix_web::rt::System::new().block_on(exact(changes));
    }
}
