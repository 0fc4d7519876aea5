package dev.externalip.hotrod;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;

import io.netty.channel.Channel;
import io.netty.channel.EventLoopGroup;

/**
 * An event loop group whose channels look up the map when they connect. A channel's pipeline is the application's until
 * it is registered, which is before it connects: that is where the lookup is put first, whatever kind of channel it is.
 */
final class MappedGroup {
    private MappedGroup() {
    }

    /** A proxy, because the groups for epoll and io_uring are final and the interface has some thirty methods. */
    static EventLoopGroup of(EventLoopGroup group, AddressMap map) {
        return (EventLoopGroup) Proxy.newProxyInstance(MappedGroup.class.getClassLoader(),
            new Class<?>[] {EventLoopGroup.class}, (proxy, method, arguments) -> {
                if (method.getName().equals("register") && arguments[0] instanceof Channel channel) {
                    channel.pipeline().addFirst(new MappedConnect(map));
                }
                try {
                    return method.invoke(group, arguments);
                } catch (InvocationTargetException e) {
                    throw e.getCause();
                }
            });
    }
}
