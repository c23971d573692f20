"""The SAM back end. Importing torchvision beside a CPU build of torch goes through `gigaseg.sam.torchvision_ops`."""
