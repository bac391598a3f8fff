export const register = () => {}
