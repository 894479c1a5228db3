//! How much memory a device has. wgpu does not tell, so the system is asked: sysfs for AMD, the driver's tool for NVIDIA.

use std::{
    fs,
    io::Read,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Of a software device, whose memory is the machine's.
pub(super) const SOFTWARE_BYTES: u64 = 2 << 30;

/// Of a device of which nobody knows: what small cards have.
pub(super) const ASSUMED_BYTES: u64 = 4 << 30;

/// PCI vendor of NVIDIA.
const NVIDIA: u32 = 0x10de;

/// The memory of this adapter in bytes, if the driver tells within `patience`.
pub(super) fn of_adapter(info: &wgpu::AdapterInfo, patience: Duration) -> Option<u64> {
    let bus = info.device_pci_bus_id.as_str();
    if bus.is_empty() || !bus.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) {
        return None;
    }
    let told = fs::read_to_string(format!("/sys/bus/pci/devices/{bus}/mem_info_vram_total")).ok();
    if let Some(bytes) = told.and_then(|text| text.trim().parse().ok()) {
        return Some(bytes);
    }
    (info.vendor == NVIDIA).then(|| nvidia(bus, patience)).flatten()
}

/// Asks the tool that comes with the driver; it counts in MiB.
fn nvidia(bus: &str, patience: Duration) -> Option<u64> {
    let mut child = Command::new("nvidia-smi")
        .args(["--query-gpu=memory.total", "--format=csv,noheader,nounits", "-i", bus])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let end = Instant::now() + patience;
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if Instant::now() < end => thread::park_timeout(Duration::from_millis(5)),
            _ => break false,
        }
    };
    if !ended {
        // It may have ended by itself meanwhile.
        let _ = child.kill();
        let _ = child.wait();
        return None;
    }
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).ok()?;
    mebibytes(&text)
}

fn mebibytes(text: &str) -> Option<u64> {
    text.lines().next()?.trim().parse::<u64>().ok()?.checked_mul(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tool_s_answer_is_read_and_its_complaints_are_not() {
        assert_eq!(mebibytes("81559\n"), Some(81_559 << 20));
        assert_eq!(mebibytes("No devices were found\n"), None);
        assert_eq!(mebibytes(""), None);
    }
}
