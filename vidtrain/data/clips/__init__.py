"""From a row of the manifest to a batch: sampling, crops, augmentation, loader. Imports readers, manifest, flow."""
