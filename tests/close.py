"""The one place for tolerances: each says why it is not exact."""

# float32 convolutions sum in an order that depends on the machine; 1e-5 relative is about a hundred
# roundings, far under anything that a wrong formula would give.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}
