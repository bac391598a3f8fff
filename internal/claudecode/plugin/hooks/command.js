// How the mod starts claudemesh: the program and what stands before a command's name.
export const command = ["claudemesh"]
