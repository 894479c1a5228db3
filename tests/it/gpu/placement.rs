//! Several devices: where leases go, whole devices, refusals.

use greenroom::gpu::{
    DeviceOptions, DeviceSource, GpuDevice, GpuError, GpuManager, LeaseRequest, SimulatedDevice,
};

use super::share;

async fn devices(memory: &[u64]) -> GpuManager {
    let mut devices = Vec::new();
    for bytes in memory {
        let spec = SimulatedDevice { memory_bytes: *bytes, ..Default::default() };
        let options = DeviceOptions { source: DeviceSource::Simulated(spec), ..Default::default() };
        devices.push(GpuDevice::open(options).await.unwrap());
    }
    GpuManager::new(devices)
}

fn parts(manager: &GpuManager) -> Vec<u32> {
    manager.free().iter().map(|free| free.ten_thousandths).collect()
}

#[tokio::test]
async fn parts_share_devices_and_whole_devices_stay_whole() {
    let manager = devices(&[1 << 20; 3]).await;
    let half = LeaseRequest::new(share(0.5));
    let mut leases = manager.acquire(half).await.unwrap();
    leases.extend(manager.acquire(half).await.unwrap());
    assert_eq!(parts(&manager), [0, 10_000, 10_000], "the second half goes where the first is");
    let two = manager.acquire(LeaseRequest::new(share(2.0))).await.unwrap();
    assert_eq!(two.len(), 2);
    assert_eq!(parts(&manager), [0, 0, 0]);
    let refused = manager.acquire(LeaseRequest::new(share(0.1))).await.unwrap_err();
    assert!(matches!(refused, GpuError::Unplaceable { .. }), "{refused}");
    for lease in two {
        lease.release().await.unwrap();
    }
    assert_eq!(parts(&manager), [0, 10_000, 10_000]);
}

#[tokio::test]
async fn whole_devices_that_are_not_there_take_nothing() {
    let manager = devices(&[1 << 20; 2]).await;
    let _part = manager.acquire(LeaseRequest::new(share(0.1))).await.unwrap();
    let before = parts(&manager);
    let refused = manager.acquire(LeaseRequest::new(share(2.0))).await.unwrap_err();
    assert!(matches!(refused, GpuError::Unplaceable { .. }), "{refused}");
    for device in manager.devices() {
        device.status().await.unwrap();
    }
    assert_eq!(parts(&manager), before);
}

#[tokio::test]
async fn memory_decides_where_the_share_alone_would_not() {
    let manager = devices(&[1 << 20, 8 << 20]).await;
    let large = LeaseRequest::new(share(0.1)).memory_bytes(4 << 20);
    let lease = manager.acquire(large).await.unwrap().remove(0);
    assert_eq!(lease.memory_quota_bytes(), 4 << 20);
    assert_eq!(parts(&manager), [10_000, 9_000]);
    let larger = LeaseRequest::new(share(0.1)).memory_bytes(1 << 30);
    assert!(matches!(manager.acquire(larger).await, Err(GpuError::Unplaceable { .. })));
}

#[tokio::test]
async fn without_devices_everything_is_refused() {
    let refused = GpuManager::default().acquire(LeaseRequest::new(share(0.5))).await.unwrap_err();
    assert!(refused.to_string().contains("there is no device"), "{refused}");
}
