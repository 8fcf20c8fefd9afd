"""Git loss in a Keras model of your own: `fit` trains it, and the centers move with every step.

  gitloss.keras.keras3.GitLossModel     for Keras 3 (`import keras`) on its tensorflow backend
  gitloss.keras.tf_keras.GitLossModel   for Keras 2 (`import tf_keras`)

Each module imports its own Keras and registers its class there, so that `load_model` finds it.
"""
