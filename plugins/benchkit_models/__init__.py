"""The built-in models: the ResNet of CIFAR, a multi-layer perceptron, and every model of timm."""
